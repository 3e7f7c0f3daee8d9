// The host around the TUN device of a peer under a coordinator: its addresses and routes follow the netmap, and what
// can't be had of them is said once. `up` of HostNetwork and its journal do the work.
import { readFileSync } from "node:fs";
import { formatPrefix, isV4Prefix, type Prefix } from "../../base/address.ts";
import type { Logger } from "../logger.ts";
import type { BadgePlan } from "./badge-plan.ts";
import { HostNetwork } from "./host-network.ts";

export interface BadgeHostOptions {
  readonly name: string;
  readonly mtuBytes: number;
  readonly journalFolder: string;
  readonly logger: Logger;
}

const WHY = {
  "too-wide": "a netmap may not take a host's default route: add it by hand if you mean it",
  "served-here": "this host is a gateway into it and dials there over its own network",
  coordinator: "the coordinator is in it, and could no longer be reached: let the route leave its address out",
  "no-ipv6": "IPv6 is switched off on this host (net.ipv6.conf.*.disable_ipv6)",
  taken: "another device of this host has that very route: what goes there does not go through a gateway",
} as const;

/** By the kernel's word for the device; also where it has no IPv6 at all. */
function isIpv6Off(name: string): boolean {
  try {
    return readFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, "latin1").trim() === "1";
  } catch {
    return true;
  }
}

/** As far as this host can have it: with IPv6 switched off, as containers often have it, IPv4 alone. */
function possible(plan: BadgePlan, name: string): BadgePlan {
  const addresses = plan.addresses.filter(isV4Prefix);
  if (addresses.length === 0 || !isIpv6Off(name)) return plan;
  const lost = [...plan.overlay, ...plan.beyond].filter((prefix) => !isV4Prefix(prefix));
  return {
    addresses,
    overlay: plan.overlay.filter(isV4Prefix),
    beyond: plan.beyond.filter(isV4Prefix),
    leftOut: [...plan.leftOut, ...lost.map((prefix) => ({ prefix, why: "no-ipv6" as const }))],
  };
}

const textOf = ({ addresses, overlay, beyond }: BadgePlan): string =>
  [addresses, overlay, beyond].map((prefixes) => prefixes.map(formatPrefix).join(" ")).join("; ");

export class BadgeHost {
  readonly #options: BadgeHostOptions;
  readonly #network: HostNetwork;
  readonly #said = new Set<string>();
  #plan: BadgePlan;
  /** The last that the host is as. */
  #done: string | undefined;
  #routes: readonly Prefix[] = [];
  #isUpdating = false;
  #isWanted = false;
  #isDown = false;

  private constructor(options: BadgeHostOptions, network: HostNetwork, plan: BadgePlan) {
    this.#options = options;
    this.#network = network;
    this.#plan = plan;
  }

  /** @throws WirebadgeError as HostNetwork.up, with nothing left on the host */
  static async up(options: BadgeHostOptions, wanted: BadgePlan): Promise<BadgeHost> {
    const { name, mtuBytes, logger, journalFolder } = options;
    const plan = possible(wanted, name);
    const { addresses, overlay } = plan;
    const network = await HostNetwork.up(
      { name, mtuBytes, addresses, routes: overlay, table: "auto", fwMark: 0 },
      { journalFolder, logger },
    );
    const host = new BadgeHost(options, network, plan);
    try {
      await host.#setRoutes(plan);
      host.#done = textOf(plan);
    } catch (error) {
      await network.down();
      throw error;
    }
    return host;
  }

  /** What the host reaches by the device. */
  get routes(): readonly Prefix[] {
    return this.#routes;
  }

  /** Follows the netmap, one change after the other; a plan that another overtakes is passed over. */
  follow(plan: BadgePlan): void {
    this.#plan = possible(plan, this.#options.name);
    this.#isWanted = true;
    if (this.#isUpdating) return;
    this.#isUpdating = true;
    void this.#update();
  }

  /** @throws INTERNAL naming what could not be undone */
  async down(): Promise<void> {
    this.#isDown = true;
    await this.#network.down();
  }

  async #update(): Promise<void> {
    while (this.#isWanted && !this.#isDown) {
      this.#isWanted = false;
      const plan = this.#plan;
      const text = textOf(plan);
      if (text === this.#done) continue; // most changes of a netmap concern nothing here
      this.#done = undefined;
      try {
        await this.#network.updateAddresses(plan.addresses);
        await this.#setRoutes(plan);
        this.#done = text;
      } catch (error) {
        const { logger, name } = this.#options;
        if (!this.#isDown) logger.error({ event: "host-failed", err: error }, `${name} is not as the netmap has it`);
      }
    }
    this.#isUpdating = false;
  }

  async #setRoutes({ overlay, beyond, leftOut }: BadgePlan): Promise<void> {
    const taken = new Set((await this.#network.takenRoutes()).map(formatPrefix));
    const free = beyond.filter((prefix) => !taken.has(formatPrefix(prefix)));
    for (const prefix of beyond) if (!free.includes(prefix)) this.#say(prefix, "taken");
    for (const { prefix, why } of leftOut) this.#say(prefix, why);
    if (this.#isDown) return;
    const routes = [...overlay, ...free];
    await this.#network.updateRoutes(routes);
    this.#routes = routes;
    const known = new Set([...beyond, ...leftOut.map(({ prefix }) => prefix)].map(formatPrefix));
    for (const route of this.#said) if (!known.has(route)) this.#said.delete(route);
  }

  #say(prefix: Prefix, why: keyof typeof WHY): void {
    const route = formatPrefix(prefix);
    if (this.#said.has(route)) return;
    this.#said.add(route);
    this.#options.logger.warn({ event: "route-left-out", route, why }, `no route to ${route}: ${WHY[why]}`);
  }
}
