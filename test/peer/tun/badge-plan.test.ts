// What a netmap asks of the host around a TUN device.
import { expect, test } from "vitest";
import { formatPrefix, parseAddress } from "../../../src/base/address.ts";
import type { NetmapView, PeerEntry } from "../../../src/control/netmap.ts";
import { planBadge } from "../../../src/peer/tun/badge-plan.ts";
import { formatInterfaceAddress } from "../../../src/peer/tun/route-plan.ts";

const ULA = "fd4e:8b1c:22a0::/48";

function viewOf(own: readonly string[], prefixes: readonly string[], routes: readonly string[] = []): NetmapView {
  const peer = { session: "s_0000000000000001", prefixes } as unknown as PeerEntry;
  const network = { ula: ULA, pool4: "10.77.0.0/16" };
  const self = { addresses: own };
  const view = { network, self, peers: [peer], routes: routes.map((destination) => ({ destination })) };
  return view as unknown as NetmapView;
}

function planned(...args: Parameters<typeof viewOf>) {
  const { addresses, overlay, beyond, leftOut } = planBadge(viewOf(...args), parseAddress("192.0.2.9"));
  return {
    addresses: addresses.map(formatInterfaceAddress),
    overlay: overlay.map(formatPrefix),
    beyond: beyond.map(formatPrefix),
    leftOut: leftOut.map(({ prefix, why }) => `${formatPrefix(prefix)} ${why}`),
  };
}

test("its addresses alone, the overlay whole, and each route of gateways that no other covers", () => {
  const peers = ["fd4e:8b1c:22a0::9/128", "10.77.0.9/32", "10.20.5.0/24", "10.20.0.0/16", "10.20.0.0/16", "fd99::/64"];
  expect(planned(["fd4e:8b1c:22a0::1", "10.77.0.1"], peers)).toEqual({
    addresses: ["fd4e:8b1c:22a0::1/128", "10.77.0.1/32"],
    overlay: ["fd4e:8b1c:22a0::/48", "10.77.0.0/16"],
    beyond: ["10.20.0.0/16", "fd99::/64"],
    leftOut: [],
  });
});

test("nothing of a family that it has no address of: the packets would carry another interface's", () => {
  expect(planned(["fd4e:8b1c:22a0::1"], ["10.20.0.0/16", "fd99::/64"])).toEqual({
    addresses: ["fd4e:8b1c:22a0::1/128"],
    overlay: ["fd4e:8b1c:22a0::/48"],
    beyond: ["fd99::/64"],
    leftOut: [],
  });
});

test("no default route, whole or in parts, and nothing that this host itself serves, in part or around it", () => {
  const peers = [
    "0.0.0.0/0",
    "128.0.0.0/1",
    "::/0",
    "2000::/3",
    "10.20.0.0/16",
    "10.0.0.0/8",
    "10.20.7.0/24",
    "16.0.0.0/4",
  ];
  const { beyond, leftOut } = planned(["fd4e:8b1c:22a0::1", "10.77.0.1"], peers, ["10.20.0.0/16", "host:*.internal"]);
  expect(beyond).toEqual(["16.0.0.0/4"]);
  expect(leftOut.sort()).toEqual([
    "0.0.0.0/0 too-wide",
    "10.0.0.0/8 served-here",
    "10.20.0.0/16 served-here",
    "10.20.7.0/24 served-here",
    "128.0.0.0/1 too-wide",
    "2000::/3 too-wide",
    "::/0 too-wide",
  ]);
});

test("no route that the coordinator is in, and every other beside it", () => {
  const peers = ["192.0.2.0/24", "192.0.2.9/32", "192.0.2.10/32", "192.0.0.0/16", "198.51.100.0/24"];
  const { beyond, leftOut } = planned(["fd4e:8b1c:22a0::1", "10.77.0.1"], peers);
  expect(beyond.sort()).toEqual(["192.0.2.10/32", "198.51.100.0/24"]);
  expect(leftOut.sort()).toEqual(["192.0.0.0/16 coordinator", "192.0.2.0/24 coordinator", "192.0.2.9/32 coordinator"]);
});
