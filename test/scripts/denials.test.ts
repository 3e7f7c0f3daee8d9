// What a denial looks like to whom it concerns, between real processes: at once, with its reason and id, and no word of
// what the caller may not know. And offers that nobody gave a peer the right to make: they change nothing for others.

import { createConnection, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SocksReplyError } from "../../src/cli/socks-client.ts";
import type { Denial } from "../../src/peer/local-api-schema.ts";
import { type CommandOutcome, type Recorder, TestNetwork, type TestPeer } from "./network.ts";
import { until } from "./program.ts";

const DENIED = 2; // SOCKS reply: not allowed by the rules
/** 100 ms are promised; a busy test machine gets more. */
const TOLD_WITHIN_MS = 1_000;

/** Each service has a port of its own there; behind the gateway all are one. */
const PORTS: Readonly<Record<string, number>> = {
  staging: 7001,
  production: 7002,
  hidden: 7003,
  unsaid: 7004,
  vault: 7005,
};
const portOf = (name: string): number => PORTS[name] ?? 7003;

let network: TestNetwork;
let service: Recorder;
let promised: Recorder;
let gateway: TestPeer;
let laptop: TestPeer;
let coder: TestPeer;
let auditor: TestPeer;

beforeAll(async () => {
  network = await TestNetwork.start();
  service = await network.service("service");
  promised = await network.service("promised");
  const via = ["node:gw"];
  const at = (name: string): string => `127.0.0.1 tcp:${portOf(name)}`;
  await network.setPolicy({
    services: {
      staging: { at: at("staging"), via },
      production: { at: at("production"), via, discoverable: true },
      hidden: { at: at("hidden"), via },
      unsaid: { at: at("unsaid"), via },
      vault: { at: at("vault"), via }, // for the forward: a repeated denial within a second is told once
      promised: { at: `127.0.0.1 tcp:${promised.port}`, via: ["node:laptop"] },
    },
    routes: { "fd77::/16": { via } },
    grants: [
      { id: "coder-works", from: "agent:coder", to: ["service:staging", "service:unsaid", "service:promised"] },
      { id: "coder-site", from: "agent:coder", to: "fd77::/16 any" },
      { id: "auditor-sees", from: "agent:auditor", to: ["service:production", "service:hidden", "service:staging"] },
    ],
  });
  const serves = ["staging", "production", "hidden"].flatMap((name) => ["--serve", `${name}=${service.at}`]);
  gateway = await network.join("node:gw", [...serves, "--serve", "unsaid", "--route", "fd77::/16"]);
  laptop = await network.join("node:laptop", []);
  const forward = ["--forward", `127.0.0.1:0=vault:${portOf("vault")}`];
  coder = await network.join("agent:coder", ["--socks", ...forward]);
  auditor = await network.join("agent:auditor", ["--socks"]);
}, 120_000);

afterAll(() => network?.close());

/** The denials on the peer's standard error so far. */
function told(peer: TestPeer): (Denial & { readonly event: string })[] {
  const lines = peer.program.stderrLines.filter((line) => line.startsWith('{"event":"denial"'));
  return lines.map((line) => JSON.parse(line) as Denial & { readonly event: string });
}

/** The first denial after the earlier ones, on standard error, in the list of the local API and in `denials --json`. */
async function toldWithin(peer: TestPeer, earlier: number): Promise<Denial> {
  const denial = await until("denial on stderr", () => told(peer)[earlier], TOLD_WITHIN_MS);
  expect((await peer.denials()).at(-1)?.id).toBe(denial.id);
  const listed = await network.command(["denials", "--state", peer.state, "--json"]);
  const { denials } = JSON.parse(listed.stdout) as { denials: Denial[] };
  expect(denials.at(-1)).toMatchObject({ id: denial.id, reason: denial.reason });
  return denial;
}

async function replyTo(peer: TestPeer, host: string, port = portOf(host)): Promise<number> {
  try {
    (await peer.connect(host, port)).destroy();
    return 0;
  } catch (error) {
    if (error instanceof SocksReplyError) return error.reply;
    throw error;
  }
}

const can = (...words: readonly string[]): Promise<CommandOutcome> =>
  network.command(["can", ...words, "--state", coder.state, "--json"]);

test("the grants themselves work", async () => {
  expect(await coder.echo("staging", portOf("staging"), "granted")).toBe("granted");
  expect(await auditor.echo("hidden", portOf("hidden"), "granted, too")).toBe("granted, too");
});

test("a denied SOCKS connection: reply 2, and at once the reason with its id on stderr and in `denials`", async () => {
  const earlier = told(coder).length;
  expect(await replyTo(coder, "production")).toBe(DENIED);
  const denial = await toldWithin(coder, earlier);
  expect(denial).toMatchObject({ reason: "NO_GRANT", hop: "source", destination: "production", port: 7002 });
  expect(denial.id).toMatch(/^d_\w+$/);
  expect(denial.hint).toContain('"to": "service:production"'); // it is discoverable
});

test("a denied --forward connection is reset, and its reason told as well", async () => {
  const earlier = told(coder).length;
  const entry = coder.entryPoints.find(({ kind }) => kind === "forward");
  const [host, port] = entry?.listen.split(":") ?? [];
  const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    const socket = createConnection({ host: host!, port: Number(port) });
    socket.on("error", resolve).on("close", () => resolve(undefined));
    socket.write("?");
    socket.resume();
  });
  expect(error?.code).toBe("ECONNRESET");
  expect(await toldWithin(coder, earlier)).toMatchObject({ reason: "NO_GRANT", destination: "vault" });
});

test("what the gateway refuses is told to the caller under the gateway's id, which says there why", async () => {
  const earlier = told(coder).length;
  expect(await replyTo(coder, "unsaid")).toBe(DENIED); // 127.0.0.1, by the policy alone
  const denial = await toldWithin(coder, earlier);
  expect(denial).toMatchObject({ hop: "destination" });
  const there = (await gateway.denials()).at(-1);
  expect(there).toMatchObject({ id: denial.id, reason: "DIAL_REFUSED", ruleId: "LOOPBACK", identity: "agent:coder" });
});

/** All that a SOCKS client reads for one CONNECT, to the end of the stream. */
async function socksBytes(peer: TestPeer, host: string): Promise<string> {
  const entry = peer.socks;
  const socket: Socket = createConnection({ ...entry });
  const name = Buffer.from(host);
  const port = Buffer.from([portOf(host) >> 8, portOf(host) & 255]);
  socket.write(Buffer.concat([Buffer.from([5, 1, 0, 5, 1, 0, 3, name.length]), name, port]));
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("hex");
}

test("an undisclosed name and one that doesn't exist get the same bytes, from every face", async () => {
  const [hidden, unknown] = ["hidden", "absent"]; // of one length
  const earlier = told(coder).length;
  const bytes = await socksBytes(coder, hidden);
  expect(bytes.startsWith("05000502")).toBe(true);
  expect(await socksBytes(coder, unknown)).toBe(bytes);

  const denials = await until("both denials", () => (told(coder).length >= earlier + 2 ? told(coder) : undefined));
  const [one, other] = denials.slice(earlier).map(({ id, atMs, ...rest }) => JSON.stringify(rest));
  expect(one?.replaceAll(hidden, unknown)).toBe(other);

  for (const dest of ["service:NAME", "NAME tcp:80", "node:NAME tcp:22"]) {
    const [first, second] = await Promise.all([hidden, unknown].map((name) => can(dest.replace("NAME", name))));
    expect(first?.code).toBe(1);
    expect({ ...first, stdout: first?.stdout.replaceAll(hidden, unknown) }).toEqual(second);
  }
  expect(JSON.stringify(await coder.status())).not.toContain(hidden);
});

test("`can` exits with 0 for allowed, 1 for denied, 2 for an error", async () => {
  const outcomes: [string, CommandOutcome][] = [];
  for (const dest of ["service:staging", "service:production", "10.0.0.1", "service:a service"]) {
    outcomes.push([dest, await can(dest)]);
  }
  expect(outcomes.map(([dest, { code }]) => [dest, code])).toEqual([
    ["service:staging", 0],
    ["service:production", 1],
    ["10.0.0.1", 2],
    ["service:a service", 2],
  ]);
  expect(JSON.parse(outcomes[0]![1].stdout)).toMatchObject({ allowed: true, ruleId: "coder-works" });
  expect(JSON.parse(outcomes[2]![1].stdout)).toMatchObject({ error: { code: "USAGE", hint: /tcp:/ } });
});

test("`can FROM DEST` tells the administrator the whole reason", async () => {
  const ask = (from: string, dest: string): Promise<CommandOutcome> => network.adminCommand(["can", from, dest]);
  const allowed = await ask("agent:auditor", "service:hidden");
  expect([allowed.code, JSON.parse(allowed.stdout)]).toMatchObject([0, { allowed: true, ruleId: "auditor-sees" }]);
  const denied = await ask("agent:coder", "service:hidden");
  const explanation = ['an admin can grant { "from": "agent:coder", "to": "service:hidden" }'];
  expect([denied.code, JSON.parse(denied.stdout)]).toMatchObject([1, { reason: "NO_GRANT", explanation }]);
  expect((await ask("agent:stranger", "service:hidden")).code).toBe(2);
});

/** What a peer has in its tables, as far as its status tells. */
async function tables(peer: TestPeer): Promise<unknown> {
  const { revision, policyVersion, peers, services, serving, refusedOffers } = await peer.status();
  const known = peers.map(({ session, addresses, publicKey }) => ({ session, addresses, publicKey }));
  return { revision, policyVersion, known, services, serving, refusedOffers };
}

test("a node that offers part of another's route, or all addresses, changes nobody's tables", async () => {
  const others = [gateway, laptop, coder, auditor];
  const before = await Promise.all(others.map(tables));
  const offers = ["fd77:5::/32", "::/0", "0.0.0.0/0", "host:*"];
  const words = [...offers.flatMap((offer) => ["--route", offer]), "--serve", `staging=${promised.at}`];
  const rogue = await network.join("node:rogue", words);
  const refused = (await rogue.status()).refusedOffers;
  expect(refused.map(({ offer }) => offer).sort()).toEqual([...offers, "service:staging"].sort());
  for (const { reason } of refused) expect(reason).toMatch(/neither the policy's `via` nor .* --may-route/);
  expect((await rogue.status()).serving).toEqual([]);

  const line = await until("audit line", async () =>
    (await network.audit("offer.refuse")).find(({ subject }) => subject === `session:${rogue.session}`),
  );
  expect(JSON.stringify(line.details)).toContain("::/0");
  const { sessions } = await network.admin(["session", "list"]);
  const listed = (sessions as { id: string; refusedOffers: unknown[] }[]).find(({ id }) => id === rogue.session);
  expect(listed?.refusedOffers).toHaveLength(offers.length + 1);

  expect(await Promise.all(others.map(tables))).toEqual(before);
  expect(await coder.echo("staging", portOf("staging"), "still the gateway's")).toBe("still the gateway's");
  expect(await replyTo(coder, "fd77:5::1")).not.toBe(0); // goes to the gateway of fd77::/16, which has no way there
  expect(promised.received).toEqual([]);
  expect((await rogue.status()).peers).toEqual([]); // nobody has even been told of it
});

test("a node that the policy names, but that offers nothing itself, is not dialled; the admin sees why", async () => {
  expect(await replyTo(coder, "promised", promised.port)).toBe(DENIED);
  const asked = await network.adminCommand(["can", "agent:coder", "service:promised"]);
  expect(asked.code).toBe(1);
  expect(JSON.parse(asked.stdout)).toMatchObject({ allowed: false, reason: "NO_GATEWAY", ruleId: "coder-works" });
  expect(asked.stdout).toContain("wirebadge up --serve promised");
  const { sessions } = await network.admin(["session", "list"]);
  const listed = (sessions as { id: string; missingOffers: string[] }[]).find(({ id }) => id === laptop.session);
  expect(listed?.missingOffers).toEqual(["service:promised"]);
  expect((await laptop.status()).serving).toEqual([]);
  expect(promised.received).toEqual([]);

  // The same node with its own word for it.
  await laptop.program.end();
  const willing = await network.join("node:laptop", ["--serve", `promised=${promised.at}`], { state: "willing" });
  await until("a gateway", async () => (await can("service:promised")).code === 0 || undefined);
  expect(await coder.echo("promised", promised.port, "now")).toBe("now");
  expect((await willing.status()).serving).toEqual(["service:promised"]);
});
