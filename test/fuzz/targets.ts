// Every fuzz target, and how many inputs each gets.
import type { FuzzTarget } from "./target.ts";
import { ADDRESS_TARGETS } from "./targets/addresses.ts";
import { CHANNEL_TARGETS } from "./targets/channels.ts";
import { CONTROL_TARGETS } from "./targets/control.ts";
import { DEVICE_TARGETS } from "./targets/device.ts";
import { FRAGMENT_TARGETS } from "./targets/fragments.ts";
import { LOCAL_TARGETS } from "./targets/local.ts";
import { NAME_TARGETS } from "./targets/names.ts";
import { NETMAP_TARGETS } from "./targets/netmaps.ts";
import { PACKET_TARGETS } from "./targets/packets.ts";
import { SUPER_PACKET_TARGETS } from "./targets/super-packets.ts";
import { TCP_TARGETS } from "./targets/tcp-machine.ts";
import { TEXT_TARGETS } from "./targets/texts.ts";
import { WIRE_TARGETS } from "./targets/wire.ts";

export const TARGETS: readonly FuzzTarget[] = [
  ...ADDRESS_TARGETS,
  ...PACKET_TARGETS,
  ...WIRE_TARGETS,
  ...NAME_TARGETS,
  ...SUPER_PACKET_TARGETS,
  ...CONTROL_TARGETS,
  ...NETMAP_TARGETS,
  ...TEXT_TARGETS,
  ...TCP_TARGETS,
  ...FRAGMENT_TARGETS,
  ...CHANNEL_TARGETS,
  ...DEVICE_TARGETS,
  ...LOCAL_TARGETS,
];

/**
 * `total` inputs spread over the targets by their shares, rounded up. Of many a dear target gets its `most`, and the
 * others the rest; where all are dear, none is spared.
 */
export function splitOf(total: number, among: readonly FuzzTarget[] = TARGETS): ReadonlyMap<FuzzTarget, number> {
  const split = new Map<FuzzTarget, number>();
  const isSpared = among.some(({ most }) => most === undefined);
  let open = among;
  for (;;) {
    const left = total - [...split.values()].reduce((sum, inputs) => sum + inputs, 0);
    const shares = open.reduce((sum, { share }) => sum + share, 0);
    const wanted = (target: FuzzTarget): number => Math.ceil((left * target.share) / shares);
    const full = isSpared ? open.filter((target) => wanted(target) > (target.most ?? Number.POSITIVE_INFINITY)) : [];
    for (const target of full) split.set(target, target.most!);
    if (full.length === 0) {
      for (const target of open) split.set(target, wanted(target));
      return split;
    }
    open = open.filter((target) => !split.has(target));
  }
}
