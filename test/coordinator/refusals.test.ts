import { afterAll, beforeAll, expect, test } from "vitest";
import { randomBytes } from "../../src/base/random.ts";
import { sessionListSchema, tokenListSchema } from "../../src/coordinator/http/schema.ts";
import { osRandom } from "../../src/io/os-random.ts";
import type { ControlClientOptions } from "../../src/peer/control-client.ts";
import { TestNetwork, type TestPeer } from "./network.ts";

let network: TestNetwork;
beforeAll(async () => {
  network = await TestNetwork.start();
});
afterAll(async () => {
  await network.end();
});

/** The code and hint that a peer's first start fails with. */
async function refusalOf(peer: TestPeer): Promise<string> {
  peer.client.start();
  const error: unknown = await peer.client.ready.then(
    () => new Error("it was let in"),
    (reason: unknown) => reason,
  );
  expect(error).toHaveProperty("hint");
  expect((error as { hint: string }).hint).not.toBe("");
  return (error as { code: string }).code;
}

function keysOf(peer: TestPeer): Partial<ControlClientOptions> {
  return { signSeed: peer.options.signSeed, wireguardKey: peer.options.wireguardKey };
}

async function joined(peer: TestPeer): Promise<string> {
  peer.client.start();
  await peer.client.ready;
  return peer.session;
}

test("the same token with the same two keys gives the same session again, spent and expired as it is", async () => {
  const token = await network.token({ as: "agent:again", expiresInMs: 60_000 });
  const peer = network.peer(token);
  const session = await joined(peer);
  await peer.client.stop();
  expect(await joined(network.peer(token, keysOf(peer)))).toBe(session);
  network.clock.aheadMs += 120_000;
  expect(await joined(network.peer(token, keysOf(peer)))).toBe(session);
  const { tokens } = await network.admin(tokenListSchema, "GET", "/v1/tokens");
  expect(tokens.find(({ id }) => id === token.id)).toMatchObject({ usesLeft: 0, state: "spent" });
});

test("a spent token is refused to other keys", async () => {
  const token = await network.token({ as: "agent:once" });
  await joined(network.peer(token));
  expect(await refusalOf(network.peer(token))).toBe("TOKEN_SPENT");
});

test("the first start fails with the refusal itself, also when whoever hears of it stops the client", async () => {
  const token = await network.token({ as: "agent:hasty" });
  await joined(network.peer(token));
  const late = network.peer(token);
  late.client.on("problem", (_, final) => void (final && late.client.stop()));
  expect(await refusalOf(late)).toBe("TOKEN_SPENT");
});

test("a token with two uses lets two sessions in and no third", async () => {
  const token = await network.token({ as: "agent:twice", uses: 2 });
  const [a, b] = [await joined(network.peer(token)), await joined(network.peer(token))];
  expect(a).not.toBe(b);
  expect(await refusalOf(network.peer(token))).toBe("TOKEN_SPENT");
});

test("two peers that race for a token's last use: one gets in", async () => {
  const token = await network.token({ as: "agent:race" });
  const outcomes = await Promise.all(
    [network.peer(token), network.peer(token), network.peer(token)].map(async (peer) => {
      peer.client.start();
      return await peer.client.ready.then(
        () => "in",
        (error: { code: string }) => error.code,
      );
    }),
  );
  expect(outcomes.sort()).toEqual(["TOKEN_SPENT", "TOKEN_SPENT", "in"]);
});

test("an expired token is refused from the very millisecond", async () => {
  const token = await network.token({ as: "agent:late", expiresInMs: 1_000 });
  network.clock.aheadMs += 1_000;
  expect(await refusalOf(network.peer(token))).toBe("TOKEN_EXPIRED");
});

test("a revoked token is refused", async () => {
  const token = await network.token({ as: "agent:gone" });
  expect((await network.request("DELETE", `/v1/tokens/${token.id}`)).status).toBe(200);
  expect(await refusalOf(network.peer(token))).toBe("TOKEN_REVOKED");
});

test("a wrong secret and an unknown token are refused", async () => {
  const token = await network.token({ as: "agent:secret" });
  expect(await refusalOf(network.peer({ ...token, secret: randomBytes(osRandom, 32) }))).toBe("TOKEN_INVALID");
  expect(await refusalOf(network.peer({ ...token, id: "t_0000000000000000" }))).toBe("TOKEN_OTHER_NETWORK");
});

test("a token of another network is refused before its secret goes anywhere", async () => {
  const other = await TestNetwork.start();
  const token = await other.token({ as: "agent:stray" });
  await other.end();
  const counted = network.counter("noise-forged");
  expect(await refusalOf(network.peer({ ...token, url: network.running.url }))).toBe("COORDINATOR_UNTRUSTED");
  expect(await network.counter("noise-forged")).toBe((await counted) + 1);
});

test("a key of another session is refused, whichever of the two it is", async () => {
  const first = network.peer(await network.token({ as: "agent:first" }));
  await joined(first);
  const token = await network.token({ as: "agent:second" });
  const { signSeed, wireguardKey } = first.options;
  expect(await refusalOf(network.peer(token, { signSeed }))).toBe("IDENTITY_MISMATCH");
  expect(await refusalOf(network.peer(token, { wireguardKey }))).toBe("IDENTITY_MISMATCH");
  expect(await refusalOf(network.peer(token, { signSeed, wireguardKey }))).toBe("IDENTITY_MISMATCH");
});

test("nor does a token of many uses give one session's key to another", async () => {
  const token = await network.token({ as: "agent:many", uses: 9 });
  const first = network.peer(token);
  await joined(first);
  const { signSeed, wireguardKey } = first.options;
  expect(await refusalOf(network.peer(token, { signSeed }))).toBe("IDENTITY_MISMATCH");
  expect(await refusalOf(network.peer(token, { wireguardKey }))).toBe("IDENTITY_MISMATCH");
});

test("a session is resumed by its own keys alone", async () => {
  const peer = network.peer(await network.token({ as: "agent:resume" }));
  const session = await joined(peer);
  await peer.client.stop();
  const { signSeed, wireguardKey } = peer.options;
  const token = await network.token({ as: "agent:other" });
  expect(await joined(network.peer(token, { session, signSeed, wireguardKey }))).toBe(session);
  expect(await refusalOf(network.peer(token, { session, signSeed }))).toBe("IDENTITY_MISMATCH");
  expect(await refusalOf(network.peer(token, { session, wireguardKey }))).toBe("IDENTITY_MISMATCH");
  expect(await refusalOf(network.peer(token, { session: "s_0000000000000000" }))).toBe("NOT_FOUND");
});

test.each([
  ["session", (peer: TestPeer) => `session:${peer.session}`],
  ["identity", (peer: TestPeer) => peer.view.self.identity],
  ["token", (peer: TestPeer) => `token:${peer.options.enrolment!.tokenId}`],
  ["sponsor", () => "sponsor:user:ana@example.com"],
  ["tag", () => "tag:lab"],
])("a session revoked by its %s is told so, is not resumed and can't enrol again", async (what, selector) => {
  const request = { as: `agent:by-${what}`, uses: 9, sponsor: "user:ana@example.com", tags: ["lab"] };
  const peer = network.peer(await network.token(request));
  const session = await joined(peer);
  const revocation = await network.revoke(selector(peer));
  expect(revocation.sessions).toContain(session);
  await peer.until(() => peer.revoked && peer.client.state === "stopped", "it is told");
  const again = network.peer(await network.token({ as: "agent:x" }), { ...keysOf(peer), session });
  expect(await refusalOf(again)).toBe("SESSION_REVOKED");
  const { tokenId, secret } = peer.options.enrolment!;
  const enrolment = { tokenId, secret };
  const code = what === "session" ? "SESSION_REVOKED" : "TOKEN_REVOKED";
  const token = await network.token({ as: "agent:x" });
  expect(await refusalOf(network.peer(token, { ...keysOf(peer), enrolment }))).toBe(code);
  if (what !== "session") expect(await refusalOf(network.peer(token, { enrolment }))).toBe("TOKEN_REVOKED");
  const { sessions } = await network.admin(sessionListSchema, "GET", "/v1/sessions?all=true");
  expect(sessions.find(({ id }) => id === session)).toMatchObject({ state: "revoked", connected: false });
});

test("a session that left is gone for good", async () => {
  const peer = network.peer(await network.token({ as: "agent:leaver" }));
  const session = await joined(peer);
  await peer.client.leave();
  const again = network.peer(await network.token({ as: "agent:x" }), { ...keysOf(peer), session });
  expect(await refusalOf(again)).toBe("SESSION_REVOKED");
});
