// What the UDP side answers, datagram by datagram.
import { expect, test } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { encodeProbe, openProbeAnswer } from "../../src/control/probe.ts";
import { Counters } from "../../src/coordinator/counters.ts";
import { ProbeServer } from "../../src/coordinator/probe-server.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";

const crypto = new PortableCrypto();

test("a sender without an address of the internet is not answered, one of a zone is", () => {
  const counters = new Counters();
  const server = new ProbeServer(crypto, new SeededRandom(1), { nowMs: () => 1_000 }, counters);
  const key = server.add();
  const at = (address: string, sequence: number) =>
    server.answer(encodeProbe(crypto, key, sequence), { address, port: 4_000 });
  expect(at("", 1)).toBeUndefined();
  expect(at("/run/a.sock", 2)).toBeUndefined();
  expect(counters.get("probe-no-address")).toBe(2);
  expect(openProbeAnswer(crypto, key, 3, at("fe80::1%eth0", 3)!)).toMatchObject({ port: 4_000 });
});
