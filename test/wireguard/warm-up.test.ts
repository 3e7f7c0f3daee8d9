// What is done before the first handshake leaves nothing behind and costs little.
import { expect, test } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { createNativeCrypto } from "../../src/io/native-crypto.ts";
import { warmUp } from "../../src/wireguard/warm-up.ts";

test("handshakes of two devices in memory are done, each with its keys and a packet, and every key is given up", () => {
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
  warmUp(counting, new SeededRandom(1));
  expect(sessions).toBe(8 * 2 * 2); // handshakes, ends, directions
  expect(live).toBe(0);
});
