import { describe, expect, test } from "vitest";
import { formatAddress, makeV4, parsePrefix } from "../../src/base/address.ts";
import { POOL4_KEPT_FROM_AGENTS } from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { resolverAddresses } from "../../src/control/overlay-subnets.ts";
import { allocateAddresses, serviceAddress } from "../../src/coordinator/addresses.ts";
import type { NetworkRow } from "../../src/coordinator/store/rows.ts";

const POOL = 0x0a420000; // 10.66.0.0/16
const network: NetworkRow = { id: "n_x", name: "x", ula: "fd00:1:2::/48", pool4: "10.66.0.0/16", createdMs: 0 };

function allocate(kind: "agent" | "node", takenCount: number): Promise<string[]> {
  const taken = new Set(Array.from({ length: takenCount }, (_, i) => formatAddress(makeV4(POOL + 1 + i))));
  const store = { addressEverGiven: async () => false, takenAddresses4: async () => taken };
  return allocateAddresses(store, network, new SeededRandom(takenCount), `${kind}:a`, kind, 0);
}

describe("overlay addresses", () => {
  const agentsMax = 65_536 * (1 - POOL4_KEPT_FROM_AGENTS);

  test("agents get both families until the IPv4 pool runs low, then IPv6 alone", async () => {
    expect(await allocate("agent", 0)).toHaveLength(2);
    expect(await allocate("agent", agentsMax - 1)).toHaveLength(2);
    expect(await allocate("agent", agentsMax)).toHaveLength(1);
  });

  test("nodes get the pool's last address, and then a refusal that says how to mend it", async () => {
    const [, last] = await allocate("node", 65_533);
    expect(last).toBe("10.66.255.254");
    await expect(allocate("node", 65_534)).rejects.toMatchObject({ code: "CONFLICT", hint: expect.any(String) });
  });

  test.each(["10.66.0.0/16", "10.66.3.16/29"])(
    "of the pool %s every address is given out but the resolver's",
    async (pool4) => {
      const given = new Set<string>();
      const store = { addressEverGiven: async () => false, takenAddresses4: async () => given };
      const pool = parsePrefix(pool4)!;
      const small = pool4.endsWith("/29");
      const own = { ...network, pool4 };
      const { v4, v6 } = resolverAddresses(parsePrefix(network.ula)!, pool);
      expect(formatAddress(v6)).toBe("fd00:1:2::53");
      expect(formatAddress(v4)).toBe(pool4.split("/")[0]);
      for (let i = 0; i < (small ? 6 : 500); i++) {
        const [, address4] = await allocateAddresses(store, own, new SeededRandom(i), "node:a", "node", 0);
        given.add(address4!);
      }
      expect(given.size).toBe(small ? 6 : 500);
      expect(given.has(formatAddress(v4))).toBe(false);
      if (small)
        await expect(allocateAddresses(store, own, new SeededRandom(7), "node:a", "node", 0)).rejects.toThrow(
          "used up",
        );
    },
  );

  test("sessions and services have subnets of their own, so neither ever has the resolver's address", async () => {
    const store = { addressEverGiven: async () => false, takenAddresses4: async () => new Set<string>() };
    const [address6] = await allocateAddresses(store, network, new SeededRandom(1), "node:a", "node", 0);
    expect(address6).toMatch(/^fd00:1:2:1:/);
    expect(serviceAddress(network, "staging", "s_1")).toMatch(/^fd00:1:2:2:/);
  });
});
