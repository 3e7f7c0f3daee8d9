// Names of `up --tun`: the resolver in this peer's stack and, if asked for, the host's own told of it. What the ready
// line says of it is decided here.

import { formatAddress } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import type { NetmapView } from "../../control/netmap.ts";
import type { Netstack } from "../../netstack/contract.ts";
import type { Logger } from "../logger.ts";
import type { Turns } from "../turns.ts";
import { type EnteredDns, enterHostDns, type HostDnsPlan, namesByHand } from "./host-dns.ts";
import { OverlayNames, resolverAddressesOf } from "./overlay-names.ts";
import { OverlayResolver } from "./overlay-resolver.ts";

export interface BadgeNamesOptions {
  /** Of its local addresses `resolverAddressesOf(view)`. */
  readonly stack: Pick<Netstack, "bindUdp" | "listenTcp" | "unlistenTcp">;
  readonly turns: Turns;
  /** Defined. */
  readonly netmap: () => NetmapView | undefined;
  /** That is up. */
  readonly device: string;
  /** `--dns`: the host's resolver may be told. */
  readonly dns: boolean;
  readonly journalFolder: string;
  readonly logger: Logger;
}

/** For people, and the ready line. */
export interface NamesShown {
  /** "staging.internal": a node or service is NAME below it. */
  readonly zone: string;
  readonly resolver: readonly string[];
  /** The host's resolver asks it. */
  readonly entered: boolean;
  /** Why not, though it was asked for; or why programs may not ask it all the same. */
  readonly note?: string;
  /** What a user can do for it: a line. */
  readonly how?: string;
}

export class BadgeNames {
  readonly shown: NamesShown;
  readonly counters: Readonly<Record<string, number>>;
  readonly #resolver: OverlayResolver;
  readonly #entered: EnteredDns | undefined;

  private constructor(resolver: OverlayResolver, entered: EnteredDns | undefined, shown: NamesShown) {
    this.#resolver = resolver;
    this.#entered = entered;
    this.shown = shown;
    this.counters = resolver.counters;
  }

  /** @throws WirebadgeError CONFLICT, STATE_UNREADABLE, with nothing left open */
  static async open(options: BadgeNamesOptions): Promise<BadgeNames> {
    const { stack, turns, netmap, device, dns, journalFolder, logger } = options;
    const view = netmap();
    assert(view !== undefined, "a netmap is in force");
    const servers = resolverAddressesOf(view);
    const plan: HostDnsPlan = { device, servers, zones: new OverlayNames(view).zones };
    const resolver = OverlayResolver.open({ stack, turns, netmap, addresses: servers });
    try {
      const entered = dns ? await enterHostDns(plan, { journalFolder, logger }) : undefined;
      return new BadgeNames(resolver, entered, shownOf(plan, entered));
    } catch (error) {
      resolver.close();
      throw error;
    }
  }

  /** @throws INTERNAL naming what could not be undone */
  async close(): Promise<void> {
    try {
      await this.#entered?.leave();
    } finally {
      this.#resolver.close();
    }
  }
}

function shownOf(plan: HostDnsPlan, entered: EnteredDns | undefined): NamesShown {
  const isEntered = entered !== undefined && entered.why === undefined;
  const note = entered?.why ?? entered?.note;
  return {
    zone: plan.zones[0] ?? "internal",
    resolver: plan.servers.map(formatAddress),
    entered: isEntered,
    ...(note === undefined ? {} : { note }),
    ...(isEntered ? {} : { how: namesByHand(plan) }),
  };
}
