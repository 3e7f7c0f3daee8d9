// What is done before the first packet, and between packets, makes no more than it says.
import { expect, test } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { createNativeCrypto } from "../../src/io/native-crypto.ts";
import { warmUp } from "../../src/peer/warm-up.ts";

test("handshakes and packets of two loops in memory all arrive; kept warm they make no sessions", () => {
  const crypto = createNativeCrypto();
  let sessions = 0;
  let live = 0;
  const counting = new Proxy(crypto, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      if (name !== "transportAead") return value.bind(target);
      return (key: Uint8Array) => {
        const aead = crypto.transportAead(key);
        sessions++;
        live++;
        const destroy = (): void => {
          live--;
          aead.destroy();
        };
        return { seal: aead.seal.bind(aead), open: aead.open.bind(aead), destroy };
      };
    },
  });
  const warm = warmUp(counting, new SeededRandom(1));
  const made = 8 * 2 * 2; // handshakes, ends, directions
  expect(sessions).toBe(made);
  expect(warm.delivered).toBe(8 * 2 * 60);
  const kept = 2 * 2 * 2; // the last session and the one before
  expect(live).toBe(kept);
  for (let i = 1; i <= 5_000; i++) {
    warm.keepWarm();
    expect(warm.delivered).toBe(8 * 2 * 60 + i);
  }
  expect([sessions, live]).toEqual([made, kept]);
});
