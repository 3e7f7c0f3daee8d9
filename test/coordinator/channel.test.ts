import { afterAll, beforeAll, expect, test } from "vitest";
import { utf8 } from "../../src/base/bytes.ts";
import { CONTROL_RECORDS_PER_SECOND_MAX, CONTROL_REQUEST_MAX_BYTES } from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { CLOSE } from "../../src/control/close-codes.ts";
import { encodeJsonRecord } from "../../src/control/messages.ts";
import type { JoinToken } from "../../src/control/token.ts";
import { sessionListSchema } from "../../src/coordinator/http/schema.ts";
import { TestNetwork } from "./network.ts";
import { RawPeer } from "./raw-peer.ts";

let network: TestNetwork;
let token: JoinToken;
beforeAll(async () => {
  network = await TestNetwork.start();
  token = await network.token({ as: "agent:raw", uses: 1_000 });
});
afterAll(async () => {
  expect(network.log.lines.filter((line) => line.includes("could not be worked on"))).toEqual([]);
  await network.end();
});

interface Case {
  readonly what: string;
  readonly drop: string;
  readonly code: number;
  readonly act: (peer: RawPeer) => Promise<void> | void;
}

const CASES: Case[] = [
  {
    what: "a text frame",
    drop: "control-text-frame",
    code: CLOSE.badRecord,
    act: async (peer) => (await peer.opened()).sendRaw("hello"),
  },
  {
    what: "an unknown protocol version",
    drop: "control-version",
    code: CLOSE.protocolVersion,
    act: async (peer) => (await peer.opened()).sendRaw(Uint8Array.of(9, ...new Uint8Array(48))),
  },
  {
    what: "an empty first frame",
    drop: "control-version",
    code: CLOSE.protocolVersion,
    act: async (peer) => (await peer.opened()).sendRaw(new Uint8Array(0)),
  },
  {
    what: "a short message 1",
    drop: "noise-bad-length",
    code: CLOSE.handshakeRefused,
    act: async (peer) => (await peer.opened()).sendRaw(Uint8Array.of(1, 2, 3)),
  },
  {
    what: "a low-order ephemeral key",
    drop: "noise-low-order",
    code: CLOSE.handshakeRefused,
    act: async (peer) => (await peer.opened()).sendRaw(Uint8Array.of(1, ...new Uint8Array(48))),
  },
  {
    what: "a message 1 of noise",
    drop: "noise-forged",
    code: CLOSE.handshakeRefused,
    act: async (peer) => (await peer.opened()).sendRaw(Uint8Array.of(1, ...new Uint8Array(48).fill(9))),
  },
  {
    what: "a forged transport message",
    drop: "channel-forged",
    code: CLOSE.badRecord,
    act: async (peer) => (await peer.shaken()).sendRaw(new Uint8Array(40)),
  },
  {
    what: "enrolling before the hello",
    drop: "control-out-of-order",
    code: CLOSE.badRecord,
    act: async (peer) => (await peer.shaken()).send(peer.enroll()),
  },
  {
    what: "a hello that signs another handshake",
    drop: "hello-bad-signature",
    code: CLOSE.badRecord,
    act: async (peer) => (await peer.shaken()).send(peer.hello(new Uint8Array(32).fill(7))),
  },
  {
    what: "a hello that was signed in another channel, which stands",
    drop: "hello-bad-signature",
    code: CLOSE.badRecord,
    act: async (peer) => {
      const other = await new RawPeer(token).shaken();
      await peer.shaken();
      peer.send(other.hello());
      other.end();
    },
  },
  {
    what: "a proof of possession that was made in another channel, which stands",
    drop: "possession-not-proved",
    code: CLOSE.badRecord,
    act: async (peer) => {
      const other = await new RawPeer(token).shaken();
      await peer.shaken();
      peer.send(peer.hello());
      peer.send(other.enroll());
      other.end();
    },
  },
  {
    what: "a hello with another key's signature",
    drop: "hello-bad-signature",
    code: CLOSE.badRecord,
    act: async (peer) => (await peer.shaken()).send({ ...peer.hello(), signKey: peer.enrollKey() }),
  },
  {
    what: "a second hello",
    drop: "control-out-of-order",
    code: CLOSE.badRecord,
    act: async (peer) => {
      await peer.shaken();
      peer.send(peer.hello());
      peer.send(peer.hello());
    },
  },
  {
    what: "a WireGuard key that isn't the sender's",
    drop: "possession-not-proved",
    code: CLOSE.badRecord,
    act: async (peer) => {
      await peer.shaken();
      peer.send(peer.hello());
      peer.send(peer.enroll({ publicKey: Buffer.alloc(32, 9).toString("base64") }));
    },
  },
  {
    what: "a low-order WireGuard key",
    drop: "possession-not-proved",
    code: CLOSE.badRecord,
    act: async (peer) => {
      await peer.shaken();
      peer.send(peer.hello());
      peer.send(peer.enroll({ publicKey: Buffer.alloc(32).toString("base64") }));
    },
  },
  {
    what: "a record that is no JSON",
    drop: "record-not-json",
    code: CLOSE.badRecord,
    act: async (peer) => (await peer.admitted()).sendRecord(Uint8Array.of(1, ...utf8("{"))),
  },
  {
    what: "a netmap from a peer",
    drop: "record-unknown-kind",
    code: CLOSE.badRecord,
    act: async (peer) => (await peer.admitted()).sendRecord(Uint8Array.of(2, 0, 0)),
  },
  {
    what: "enrolling twice in one channel",
    drop: "control-out-of-order",
    code: CLOSE.badRecord,
    act: async (peer) => (await peer.admitted()).send(peer.enroll()),
  },
  {
    what: "a record one byte over the limit",
    drop: "channel-record-too-large",
    code: CLOSE.badRecord,
    act: async (peer) => (await peer.shaken()).sendRecord(new Uint8Array(CONTROL_REQUEST_MAX_BYTES + 1)),
  },
  {
    what: "more records than a channel may send",
    drop: "control-record-rate",
    code: CLOSE.tooMany,
    act: async (peer) => {
      await peer.admitted();
      // In lots that the channel's queue holds, each answered before the next.
      for (let n = 0; n < 20 * CONTROL_RECORDS_PER_SECOND_MAX; n += 40) {
        const before = peer.records.length;
        for (let i = 0; i < 40; i++) peer.send({ type: "ping", n: n + i });
        await peer.recorded(before + 40);
      }
    },
  },
];

test.each(CASES)("$what is the named drop $drop and ends the channel", async ({ drop, code, act }) => {
  const before = await network.counter(drop);
  const peer = new RawPeer(token);
  await act(peer);
  expect((await peer.closed()).code).toBe(code);
  expect(await network.counter(drop)).toBe(before + 1);
});

test("the reason of a refused version says which are served", async () => {
  const peer = await new RawPeer(token).opened();
  peer.sendRaw(Uint8Array.of(200));
  expect((await peer.closed()).reason).toBe("1-1");
});

test("a record of exactly the limit is read", async () => {
  const before = await network.counter("record-not-json");
  const peer = await new RawPeer(token).shaken();
  peer.sendRecord(new Uint8Array(CONTROL_REQUEST_MAX_BYTES).fill(1));
  await peer.closed();
  expect(await network.counter("record-not-json")).toBe(before + 1);
});

test("a message 1 that is played again gets a handshake and nothing more", async () => {
  const first = await new RawPeer(token).opened();
  const message1 = first.message1();
  first.sendRaw(message1);
  await first.recorded(1);
  const hello = first.channel.seal(encodeJsonRecord(first.hello() as Parameters<typeof encodeJsonRecord>[0]));
  const again = new RawPeer(token);
  await again.opened();
  const before = await network.counter("channel-forged");
  again.replay(message1);
  again.sendRaw(hello[0] as Uint8Array);
  expect((await again.closed()).code).toBe(CLOSE.badRecord);
  expect(await network.counter("channel-forged")).toBe(before + 1);
  first.end();
});

test("mutated records at every stage: each channel ends by a name, and a good peer still joins", async () => {
  const random = new SeededRandom(Number(process.env["FUZZ_SEED"] ?? 5));
  const rounds = Number(process.env["FUZZ_ROUNDS"] ?? 40);
  for (let round = 0; round < rounds; round++) {
    const peer = new RawPeer(token);
    const stage = random.below(3);
    if (stage === 0) await peer.opened();
    else await peer.shaken();
    if (stage === 2) peer.send(peer.hello());
    const good =
      stage === 0 ? peer.message1() : encodeJsonRecord(peer.enroll() as Parameters<typeof encodeJsonRecord>[0]);
    const bad = good.slice(0, random.chance(0.3) ? random.below(good.length) : good.length);
    for (let n = 1 + random.below(5); n > 0 && bad.length > 0; n--)
      bad[random.below(bad.length)]! ^= 1 << random.below(8);
    if (stage === 0) peer.sendRaw(bad);
    else peer.sendRecord(bad);
    if (stage === 0 && bad.length === 0) expect((await peer.closed()).code).toBe(CLOSE.protocolVersion);
    else expect(4_000 <= (await peer.closed()).code, `round ${round}`).toBe(true);
  }
  await network.join("agent:good");
});

test("what a stranger got wrong leaves nothing behind: no session, no use of the token", async () => {
  const { sessions } = await network.admin(sessionListSchema, "GET", "/v1/sessions");
  const admitted = CASES.filter(({ act }) => act.toString().includes("admitted")).length;
  expect(sessions.filter(({ token: id }) => id === token.id)).toHaveLength(admitted);
});
