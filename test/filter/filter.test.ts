import { expect, test } from "vitest";
import { parseAddress, parsePrefix } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import type { FilterState } from "../../src/filter/contract.ts";
import { Filter } from "../../src/filter/filter.ts";
import { PacketInfo, TCP_ACK, TCP_SYN } from "../../src/wire/packet.ts";

const BUFFER = new Uint8Array(64);

function segment(from: string, sourcePort: number, to: string, destinationPort: number, flags: number): PacketInfo {
  const info = new PacketInfo();
  const [s, d] = [parseAddress(from)!, parseAddress(to)!];
  Object.assign(info, { version: 6, totalBytes: 60, transportOffset: 40, protocol: 6, tcpFlags: flags });
  Object.assign(info, { source0: s.w0, source1: s.w1, source2: s.w2, source3: s.w3, sourcePort });
  Object.assign(info, {
    destination0: d.w0,
    destination1: d.w1,
    destination2: d.w2,
    destination3: d.w3,
    destinationPort,
  });
  return info;
}

const STATE: FilterState = {
  revision: 1,
  policyVersion: 1,
  inbound: [
    { id: "web", action: "allow", sessions: ["s_a"], to: parsePrefix("fd00::1")!, protocol: "tcp", ports: [[80, 80]] },
  ],
  outbound: [],
  inboundHosts: [],
  outboundHosts: [],
  revoked: [],
};

test("an opening passes by its rule, its answers by the flow, and nothing else passes", () => {
  const filter = new Filter({ random: new SeededRandom(1) });
  const slot = filter.slot("s_a");
  filter.setOwnLease(1e15);
  filter.setRemoteLease(slot, 1e15);
  filter.apply(1000, STATE);
  const syn = segment("fd00::9", 4000, "fd00::1", 80, TCP_SYN);
  const answer = segment("fd00::1", 80, "fd00::9", 4000, TCP_SYN | TCP_ACK);
  expect(filter.judgeOutbound(1000, slot, answer, BUFFER, 0).reason).toBe("AGAINST_FLOW");
  expect(filter.judgeInbound(1000, slot, syn, BUFFER, 0)).toEqual({
    allowed: true,
    reason: "ALLOWED_BY_RULE",
    ruleId: "web",
  });
  expect(filter.judgeOutbound(1000, slot, answer, BUFFER, 0).reason).toBe("ALLOWED_BY_FLOW");
  expect(filter.judgeInbound(1000, slot, segment("fd00::9", 4000, "fd00::1", 81, TCP_SYN), BUFFER, 0).reason).toBe(
    "NO_GRANT",
  );
  expect(filter.denials().map((d) => d.reason)).toEqual(["AGAINST_FLOW", "NO_GRANT"]);
});
