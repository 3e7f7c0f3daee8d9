// Every fuzz target, and how many inputs each gets.
import type { FuzzTarget } from "./target.ts";
import { ADDRESS_TARGETS } from "./targets/addresses.ts";
import { CHANNEL_TARGETS } from "./targets/channels.ts";
import { CONTROL_TARGETS } from "./targets/control.ts";
import { DEVICE_TARGETS } from "./targets/device.ts";
import { FRAGMENT_TARGETS } from "./targets/fragments.ts";
import { LOCAL_TARGETS } from "./targets/local.ts";
import { NETMAP_TARGETS } from "./targets/netmaps.ts";
import { PACKET_TARGETS } from "./targets/packets.ts";
import { TCP_TARGETS } from "./targets/tcp-machine.ts";
import { TEXT_TARGETS } from "./targets/texts.ts";
import { WIRE_TARGETS } from "./targets/wire.ts";

export const TARGETS: readonly FuzzTarget[] = [
  ...ADDRESS_TARGETS,
  ...PACKET_TARGETS,
  ...WIRE_TARGETS,
  ...CONTROL_TARGETS,
  ...NETMAP_TARGETS,
  ...TEXT_TARGETS,
  ...TCP_TARGETS,
  ...FRAGMENT_TARGETS,
  ...CHANNEL_TARGETS,
  ...DEVICE_TARGETS,
  ...LOCAL_TARGETS,
];

/** `total` inputs spread over the targets by their shares, rounded up. */
export function inputsOf(target: FuzzTarget, total: number, among: readonly FuzzTarget[] = TARGETS): number {
  const shares = among.reduce((sum, { share }) => sum + share, 0);
  return Math.ceil((total * target.share) / shares);
}
