// What is done before the first packet leaves nothing behind.
import { expect, test } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { createNativeCrypto } from "../../src/io/native-crypto.ts";
import { warmUp } from "../../src/peer/warm-up.ts";

test("handshakes and packets of two loops in memory all arrive, and every key is given up", () => {
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
  const { delivered } = warmUp(counting, new SeededRandom(1));
  expect(sessions).toBe(8 * 2 * 2); // handshakes, ends, directions
  expect(delivered).toBe(8 * 2 * 60);
  expect(live).toBe(0);
});
