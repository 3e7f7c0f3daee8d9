// What a gateway's host routes into the overlay itself is not dialled for others: it would go by the gateway's badge.
import { expect, test } from "vitest";
import { type Address, parsePrefix } from "../../src/base/address.ts";
import { GatewayDial } from "../../src/peer/gateway-dial.ts";
import type { GatewayTarget } from "../../src/peer/gateway-offers.ts";
import { hostNetwork } from "../../src/peer/real-network.ts";
import { address, CODER, netmapOf } from "./world.ts";

const caller = { session: CODER, identity: "agent:coder", sponsor: undefined };
const target: GatewayTarget = { label: undefined, to: { host: "x.internal", port: 80 }, exemption: "none" };
const allowed = { allowed: true, reason: "ALLOWED_BY_RULE", ruleId: "g" } as const;

function judged(to: Address, exemption: GatewayTarget["exemption"] = "none") {
  const dial = new GatewayDial({
    view: { netmap: () => netmapOf(), judgeInbound: () => allowed },
    network: {
      ...hostNetwork,
      ownInterfaces: () => ({ addresses: [], broadcasts: [] }),
      intoOverlay: () => [parsePrefix("10.67.0.0/16")!],
    },
    nowMs: () => 0,
  });
  return dial.judge(caller, { ...target, exemption }, [to], "tcp", 80);
}

test("a name that leads behind another gateway, by this host's own route there, is refused", () => {
  expect(judged(address("10.67.3.4"))).toMatchObject({
    kind: "denied",
    bar: { reason: "DIAL_REFUSED", ruleId: "OVERLAY" },
  });
  expect(judged(address("10.66.3.4"))).toMatchObject({ kind: "allowed" });
});

test("where the host's owner or the policy names the very address, it is their word", () => {
  expect(judged(address("10.67.3.4"), "host").kind).toBe("allowed");
  expect(judged(address("10.67.3.4"), "service").kind).toBe("allowed");
});
