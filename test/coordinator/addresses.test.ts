import { describe, expect, test } from "vitest";
import { formatAddress, makeV4 } from "../../src/base/address.ts";
import { POOL4_KEPT_FROM_AGENTS } from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { allocateAddresses } from "../../src/coordinator/addresses.ts";
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
});
