import { createSocket } from "node:dgram";
import { afterEach, beforeEach, expect, test } from "vitest";
import { formatEndpoint } from "../../src/base/address.ts";
import { toBase64 } from "../../src/base/bytes.ts";
import { encodeProbe, openProbeAnswer, PROBE_BYTES } from "../../src/control/probe.ts";
import { recordListSchema } from "../../src/coordinator/http/schema.ts";
import type { ControlTimers } from "../../src/peer/control-client.ts";
import { crypto, TestNetwork, type TestPeer } from "./network.ts";
import { RawPeer } from "./raw-peer.ts";

let network: TestNetwork;
beforeEach(async () => {
  network = await TestNetwork.start();
});
afterEach(async () => {
  await network.end();
});

const POLICY = { grants: [{ id: "g", from: "agent:coder", to: "node:box tcp:22" }] };

async function couple(): Promise<[coder: TestPeer, box: TestPeer]> {
  await network.setPolicy(POLICY);
  const box = await network.join("node:box");
  const coder = await network.join("agent:coder");
  await box.until(() => box.view.peers.length === 1, "the agent is known");
  return [coder, box];
}

test("endpoints of one peer reach those that know it, and a later list replaces the first", async () => {
  const [coder, box] = await couple();
  const stranger = await network.join("agent:stranger");
  const views = stranger.views.length;
  coder.client.setEndpoints(["192.0.2.1:51820", "not an endpoint"]);
  await box.until(() => box.view.peers[0]!.endpoints.length === 1, "the endpoint is known");
  expect(box.view.peers[0]!.endpoints).toEqual(["192.0.2.1:51820"]);
  coder.client.setEndpoints(["[2001:db8::1]:51820"]);
  await box.until(() => box.view.peers[0]!.endpoints[0] === "[2001:db8::1]:51820", "the new one is known");
  expect(stranger.views.length).toBe(views);
});

test("a punch is relayed to a peer that knows the asker, and to nobody else", async () => {
  const [coder, box] = await couple();
  const stranger = await network.join("agent:stranger");
  stranger.client.punch(box.session);
  coder.client.punch(stranger.session);
  coder.client.punch("s_0000000000000000");
  coder.client.punch(box.session);
  await box.until(() => box.punches.length > 0, "the punch is relayed");
  expect(box.punches).toEqual([coder.session]);
  expect(stranger.punches).toEqual([]);
  expect(await network.counter("punches-dropped")).toBe(3);
});

test("a revocation is told to connected peers at once, with the session's entry signed into the netmap", async () => {
  const [coder, box] = await couple();
  const startedMs = performance.now();
  const revocation = await network.revoke(`session:${coder.session}`);
  await box.until(() => box.view.revoked.length === 1, "it is told");
  expect(performance.now() - startedMs).toBeLessThan(1_000);
  expect(revocation.toldPeers).toBe(1);
  expect(box.view.peers).toEqual([]);
  expect(box.view.inbound).toEqual([]);
  expect(box.view.revoked[0]!.session).toBe(coder.session);
  await coder.until(() => coder.revoked, "the holder is told");
  expect(coder.client.state).toBe("stopped");
});

test("a lease is renewed at half its life, with a higher serial, and nothing else is sent", async () => {
  await network.setPolicy({ leases: { agent: "40s" } });
  const due: (() => void)[] = [];
  const timers: ControlTimers = {
    after: (delayMs, fire) => {
      if (delayMs === 20_000) due.push(fire);
      return () => undefined;
    },
  };
  const coder = network.peer(await network.token({ as: "agent:coder" }), { timers });
  coder.client.start();
  await coder.client.ready;
  const views = coder.views.length;
  for (const count of [2, 3]) {
    await coder.until(() => due.length === count - 1, "half its life is waited for");
    due.at(-1)!();
    await coder.until(() => coder.leases.length === count, "it is renewed");
  }
  const [first, second, third] = coder.leases;
  expect(third!.serial).toBeGreaterThan(second!.serial);
  expect(second!.serial).toBeGreaterThan(first!.serial);
  expect(coder.views.length).toBe(views);
});

test("the coordinator's time is learned, and errs towards later", async () => {
  const coder = await network.join("agent:coder", {});
  expect(coder.offsetMs).toBeGreaterThanOrEqual(-1);
  expect(coder.offsetMs).toBeLessThan(2_000);
});

test("a session that connects twice keeps the newer channel, and the older comes back later", async () => {
  const raw = await new RawPeer(await network.token({ as: "agent:twice", uses: 2 })).admitted();
  const peer = network.peer(raw.token, { signSeed: raw.signSeed, wireguardKey: raw.wireguardKey });
  peer.client.start();
  await peer.client.ready;
  expect((await raw.closed()).code).toBe(4006);
  expect(peer.client.state).toBe("connected");
});

test("a peer that lost a delta asks for the whole map and has it again", async () => {
  const [coder, box] = await couple();
  const raw = await new RawPeer(await network.token({ as: "agent:gap" })).admitted();
  const before = raw.records.filter(({ kind }) => kind === "netmap").length;
  raw.send({ type: "full" });
  await raw.recorded(raw.records.length + 1);
  expect(raw.records.filter(({ kind }) => kind === "netmap").length).toBe(before + 1);
  expect([coder.problems, box.problems]).toEqual([[], []]);
  raw.end();
});

test("denials and flows that a peer reports are kept and can be read", async () => {
  const coder = await network.join("agent:coder");
  const denial = {
    id: "d_0123456789",
    atMs: 5,
    hop: "destination" as const,
    session: coder.session,
    source: "fd00::1",
    destination: "fd00::2",
    protocol: 6,
    destinationPort: 22,
    reason: "NO_GRANT",
    policyVersion: 1,
    revision: 1,
  };
  coder.client.reportDenials(Array.from({ length: 300 }, () => denial));
  await coder.client.leave();
  const read = async (path: string) => (await network.admin(recordListSchema, "GET", path)).records;
  expect(await read("/v1/denials?limit=1000")).toHaveLength(300);
  expect((await read(`/v1/denials?limit=1&session=${coder.session}`))[0]).toMatchObject({
    reporter: coder.session,
    record: denial,
  });
  expect(await read("/v1/denials?after=299")).toHaveLength(1);
  expect(await read("/v1/flows")).toEqual([]);
});

test("the probe tells a socket its endpoint; wrong MACs, replays and strangers get silence", async () => {
  const coder = await network.join("agent:coder");
  const { key, servers } = coder.client.probe!;
  const [host, port] = servers[0]!.split(":");
  const socket = createSocket("udp4");
  const answers: Buffer[] = [];
  socket.on("message", (datagram) => answers.push(datagram));
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  const send = (bytes: Uint8Array): void => socket.send(bytes, Number(port), host);
  const forged = encodeProbe(crypto, key, 1);
  forged[50]! ^= 1;
  const probe = encodeProbe(crypto, key, 2);
  for (const bytes of [forged, encodeProbe(crypto, { ...key, id: new Uint8Array(8) }, 3), new Uint8Array(0), probe])
    send(bytes);
  const deadline = performance.now() + 5_000;
  const waitFor = async (count: number): Promise<void> => {
    while (answers.length < count && performance.now() < deadline) await new Promise((r) => setTimeout(r, 5));
  };
  await waitFor(1);
  send(probe);
  send(encodeProbe(crypto, key, 1));
  send(encodeProbe(crypto, key, 9));
  await waitFor(2);
  expect(answers).toHaveLength(2);
  const seen = openProbeAnswer(crypto, key, 2, answers[0]!);
  expect(typeof seen === "string" ? seen : formatEndpoint(seen)).toBe(`127.0.0.1:${socket.address().port}`);
  expect(answers.every(({ length }) => length <= PROBE_BYTES)).toBe(true);
  expect(await network.counter("probe-bad-mac")).toBe(1);
  expect(await network.counter("probe-unknown-key")).toBe(1);
  expect(await network.counter("probe-replayed")).toBe(2);
  await coder.client.stop();
  await network.join("agent:after");
  send(encodeProbe(crypto, key, 10));
  send(encodeProbe(crypto, key, 11));
  while ((await network.counter("probe-unknown-key")) < 3 && performance.now() < deadline)
    await new Promise((r) => setTimeout(r, 5));
  expect(answers).toHaveLength(2);
  socket.close();
});

test("netmaps and leases are signed by a key of their own, not by the one that tokens pin", async () => {
  const raw = await new RawPeer(await network.token({ as: "agent:raw" })).admitted();
  const welcome = raw.records.find((record) => record.kind === "message" && record.message.type === "welcome");
  const signKey = welcome?.kind === "message" && welcome.message.type === "welcome" ? welcome.message.signKey : "";
  expect(signKey).not.toBe(toBase64(raw.token.coordinatorKey));
  raw.end();
});

test("a node that joins two lists of gateways into one closes a never for peers that are not its own", async () => {
  // Who is in both lists declares that the service lies behind the route's gateways too.
  await network.setPolicy({
    services: { db: { at: "10.20.0.5 tcp:5432", via: ["tag:one"] } },
    routes: { "10.20.0.0/16": { via: ["tag:two"] } },
    grants: [{ id: "wide", from: "agent:coder", to: "10.20.0.0/16 any" }],
    never: [{ id: "not-db", from: "agent:coder", to: "service:db" }],
  });
  const gateway = await network.join("node:gw", { tags: ["two"], offers: { routes: ["10.20.0.0/16"], serves: [] } });
  const coder = await network.join("agent:coder");
  await coder.until(() => coder.view.peers.length === 1, "the gateway is known");
  const closes = (peer: TestPeer): boolean =>
    [...peer.view.outbound, ...peer.view.inbound].some((rule) => rule.id === "not-db");
  expect([closes(coder), closes(gateway)]).toEqual([false, false]);
  const both = await network.join("node:both", { tags: ["one", "two"] });
  await coder.until(() => closes(coder), "the clause closes at the source");
  await gateway.until(() => closes(gateway), "the clause closes at the gateway");
  expect([coder, gateway].map(({ view }) => view.peers.map(({ session }) => session))).toEqual([
    [gateway.session],
    [coder.session],
  ]);
  expect(both.view.peers).toEqual([]);
});
