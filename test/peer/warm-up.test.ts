// What is done before the first packet, and between packets, makes no more than it says: over the real ends, and over
// two that lead nowhere.
import { createSocket } from "node:dgram";
import { readlinkSync } from "node:fs";
import { expect, test } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import type { Crypto } from "../../src/crypto/provider.ts";
import { Arena } from "../../src/io/ffi/arena.ts";
import { WARM_ENDS_ARENA_BYTES, WarmEnd } from "../../src/io/ffi/warm-ends.ts";
import { createNativeCrypto, NATIVE_CRYPTO_ARENA_BYTES } from "../../src/io/native-crypto.ts";
import { createSimdSums } from "../../src/io/simd-sums.ts";
import { WARM_UP_ARENA_BYTES, warmUp } from "../../src/peer/warm-up.ts";
import { needs } from "../needs.ts";

const PACKETS = 8 * 2 * 60 + 400 + 200; // with super-packets and their acknowledgments

/** What a descriptor stands for; its number may be another's already. */
function openedAs(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return "closed";
  }
}

/** Counts keys that were made, and those that were not given up. */
function counting(crypto: Crypto) {
  const keys = { made: 0, kept: 0 };
  const proxy = new Proxy(crypto, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      if (name !== "transportAead") return value.bind(target);
      return (key: Uint8Array) => {
        const aead = crypto.transportAead(key);
        keys.made++;
        keys.kept++;
        const destroy = (): void => {
          keys.kept--;
          aead.destroy();
        };
        return { seal: aead.seal.bind(aead), open: aead.open.bind(aead), destroy };
      };
    },
  });
  return { keys, proxy };
}

function world() {
  const arena = new Arena(NATIVE_CRYPTO_ARENA_BYTES + WARM_ENDS_ARENA_BYTES + WARM_UP_ARENA_BYTES);
  const { keys, proxy } = counting(createNativeCrypto(arena));
  const ends = WarmEnd.open(arena);
  const sums = createSimdSums(arena.memory, arena.bytes);
  return { keys, ends, parts: { crypto: proxy, random: new SeededRandom(1), memory: arena, sums, ends } };
}

test.runIf(needs("linux"))("handshakes and packets all arrive; kept warm they make no sessions", () => {
  const { keys, ends, parts } = world();
  const warm = warmUp(parts);
  const made = 8 * 2 * 2; // handshakes, ends, directions
  expect(keys.made).toBe(made);
  expect(warm.delivered).toBe(8 * 2 * 60); // handshakes, ends, packets
  for (let i = 1; i < 400; i++) expect(warm.goOn()).toBe(true); // super-packets
  expect(warm.goOn()).toBe(false);
  expect(warm.delivered).toBe(PACKETS);
  const kept = 2 * 2 * 2; // the last session and the one before
  expect(keys.kept).toBe(kept);
  for (let i = 1; i <= 5_000; i++) {
    warm.keepWarm();
    expect(warm.delivered).toBe(PACKETS + i);
  }
  expect(keys).toEqual({ made, kept });
  const sockets = ends.flatMap(({ tun, udp }) => [tun.fd, udp.fd]);
  const opened = sockets.map(openedAs);
  expect(opened.join()).toMatch(/^(socket:\[\d+\],?){4}$/);
  for (const end of ends) end.close();
  for (const [i, fd] of sockets.entries()) expect(openedAs(fd)).not.toBe(opened[i]);
});

test.runIf(needs("linux"))("hears nobody else", async () => {
  const { ends } = world();
  const otherOf = (end: WarmEnd): WarmEnd => ends.find((other) => other !== end)!;
  const stranger = createSocket("udp4");
  for (const end of ends) {
    const sent = Promise.withResolvers<void>();
    stranger.send("anything", end.endpoint.port, "127.0.0.1", () => sent.resolve());
    await sent.promise;
    end.udp.push(0, 8, 8, otherOf(end).endpoint);
    end.udp.flush();
  }
  for (const end of ends) {
    expect(end.udp.receive()).toBe(1); // the other's, and no more
    expect(end.udp.source(0).port).toBe(otherOf(end).endpoint.port);
    expect(end.udp.receive()).toBe(0);
    end.close();
  }
  stranger.close();
});

test.runIf(needs("linux"))(
  "where nothing arrives it ends all the same, and keeps no more than an engine may hold",
  () => {
    const { ends, parts } = world();
    const silent = ends.map((end) => ({
      tun: end.tun,
      udp: end.udp,
      poller: end.poller,
      endpoint: { address: end.endpoint.address, port: 9 },
      hostSends: (frame: Uint8Array) => end.hostSends(frame),
      hostReceives: () => end.hostReceives(),
    }));
    const warm = warmUp({ ...parts, ends: [silent[0]!, silent[1]!] });
    for (let i = 0; i < 1_000; i++) warm.keepWarm();
    while (warm.goOn());
    expect(warm.delivered).toBe(0);
    for (const end of ends) end.close();
  },
);
