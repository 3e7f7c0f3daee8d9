// The host's side of a TUN device: addresses, MTU, routes and, for a default route, the policy routing, the anti-spoof
// rules and the sysctl that wg-quick(8) sets on Linux. Undone at the end; what would outlive the device is in a journal
// before it is made (undo-journal.ts).
import { join } from "node:path";
import { geteuid, platform } from "node:process";
import { z } from "zod";
import {
  type Address,
  formatAddress,
  formatPrefix,
  isV4,
  type Prefix,
  parseAddress,
  parsePrefix,
} from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { WirebadgeError } from "../../base/errors.ts";
import { errnoOf } from "../real-network.ts";
import { type HostChangeOptions, type HostTools, hostFailure, hostTools, IpCommand } from "./host-tools.ts";
import {
  type Family,
  familyOf,
  formatInterfaceAddress,
  type InterfaceAddress,
  nextRulePriority,
  type PlannedRoute,
  planRoutes,
  routeKey,
  spoofGuard,
} from "./route-plan.ts";
import { type LinkRow, linkRow, nftTable, routeText, ruleRow, ruleText, Undoer, undoLeftovers } from "./undo.ts";
import { DEVICE_NAME, readJournals, UndoJournal, type UndoStep } from "./undo-journal.ts";

export { type LeftoversReport, undoLeftovers } from "./undo.ts";

export interface TunPlan {
  /** Of a device that is there: 1 to 15 of a-z A-Z 0-9 _ = + . - */
  readonly name: string;
  readonly mtuBytes: number;
  /** With their host bits: `{ address: 10.0.0.2, bits: 120 }` is 10.0.0.2/24. */
  readonly addresses: readonly InterfaceAddress[];
  /** AllowedIPs of all peers. */
  readonly routes: readonly Prefix[];
  /** wg-quick's Table: "off" makes no routes, a number puts them all into that table. */
  readonly table: "auto" | "off" | number;
  /** wg's FwMark; 0: none, and one is chosen when a default route needs it. */
  readonly fwMark: number;
}

export interface HostNetworkOptions extends HostChangeOptions {
  /**
   * Marks the outer sockets (SO_MARK). Called before the routes that would else carry their datagrams into the tunnel;
   * not at all while there is no mark.
   */
  readonly setMark?: (mark: number) => void | Promise<void>;
}

const FIRST_MARK = 51820; // wg-quick's
const SRC_VALID_MARK = "net.ipv4.conf.all.src_valid_mark";

const routeRow = z.object({ dst: z.string(), dev: z.string().optional() });
const addressRow = z.object({
  addr_info: z.array(z.object({ local: z.string().optional(), prefixlen: z.number().optional() })),
});

/**
 * Where the journals of this user are: /run/wirebadge for root, $XDG_RUNTIME_DIR/wirebadge else. Both are empty after a
 * boot, as are the rules that they list. @throws USAGE when a user has no such folder
 */
export function journalFolder(env: NodeJS.ProcessEnv, uid: number = geteuid?.() ?? 0): string {
  if (uid === 0) return "/run/wirebadge";
  const runtime = env["XDG_RUNTIME_DIR"];
  if (runtime?.startsWith("/")) return join(runtime, "wirebadge");
  throw new WirebadgeError("USAGE", "there is no folder to write down what is changed on this host", {
    hint: "set XDG_RUNTIME_DIR to a folder of this user's, as RuntimeDirectory= of systemd makes",
  });
}

function checkPlan(plan: TunPlan): void {
  assert(DEVICE_NAME.test(plan.name), "a device's name");
  assert(plan.table === "auto" || plan.table === "off" || Number.isInteger(plan.table), "a routing table");
  assert(Number.isInteger(plan.fwMark) && plan.fwMark >= 0 && plan.fwMark <= 0xffffffff, "a mark");
}

/** What was made, by what undoes it. */
interface Made {
  readonly routes: ReadonlyMap<string, PlannedRoute>;
  readonly defaults: ReadonlyMap<Family, readonly UndoStep[]>;
}

const NOTHING_MADE: Made = { routes: new Map(), defaults: new Map() };

export class HostNetwork {
  readonly #plan: TunPlan;
  readonly #options: HostNetworkOptions;
  readonly #tools: HostTools;
  readonly #ip: IpCommand;
  readonly #link: LinkRow;
  readonly #undoer: Undoer;
  readonly #journal: UndoJournal;
  /** It stays when its process ends: a TUN device that was made before us, or no TUN device at all. */
  readonly #outlives: boolean;
  #addresses: readonly InterfaceAddress[];
  #deviceSteps: readonly UndoStep[] = [];
  #made: Made = NOTHING_MADE;
  #mark: number;
  #down = false;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(plan: TunPlan, options: HostNetworkOptions, tools: HostTools, link: LinkRow) {
    const device = { name: plan.name, index: link.ifindex };
    this.#plan = plan;
    this.#addresses = plan.addresses;
    this.#options = options;
    this.#tools = tools;
    this.#ip = new IpCommand(tools);
    this.#link = link;
    this.#mark = plan.fwMark;
    this.#undoer = new Undoer(tools, device);
    this.#journal = new UndoJournal(options.journalFolder, tools.place(), device);
    this.#outlives = link.linkinfo?.info_kind !== "tun" || link.linkinfo.info_data?.persist !== false;
  }

  /**
   * Sets all of it up, or nothing: a step that fails undoes those before it. Leftovers of killed processes go first.
   * @throws WirebadgeError FORBIDDEN without CAP_NET_ADMIN, CONFLICT when a route is taken, NATIVE_UNAVAILABLE without
   * `ip`, STATE_UNREADABLE when the journal can't be written
   */
  static async up(plan: TunPlan, options: HostNetworkOptions): Promise<HostNetwork> {
    checkPlan(plan);
    if (platform !== "linux") {
      throw new WirebadgeError("NATIVE_UNAVAILABLE", "a TUN device can be set up on Linux alone", {
        hint: "leave --tun out: without it no privileges and no device are needed",
      });
    }
    const tools = options.tools ?? hostTools;
    const { undone, left } = await undoLeftovers(options.journalFolder, tools);
    for (const row of undone) options.logger.info({ event: "leftovers-undone", ...row }, `${row.device}: undone`);
    for (const row of left) options.logger.warn({ event: "leftovers-left", ...row }, `${row.device}: ${row.why}`);
    const [link] = await new IpCommand(tools).list(linkRow, ["-d", "link", "show", "dev", plan.name]);
    assert(link !== undefined, "a device that is shown has a row");
    const network = new HostNetwork(plan, options, tools, link);
    try {
      if (plan.fwMark !== 0) await options.setMark?.(plan.fwMark);
      await network.#setUpDevice();
      await network.#setRoutes(plan.routes);
    } catch (error) {
      for (const why of await network.#undoEverything().catch((failure: unknown) => [String(failure)])) {
        options.logger.warn({ event: "undo-failed", device: plan.name, why }, `${plan.name}: ${why}`);
      }
      throw error;
    }
    return network;
  }

  /** What the outer sockets are to be marked with (SO_MARK); 0: with nothing. Stays when the default route goes. */
  get mark(): number {
    return this.#mark;
  }

  /** The mark that our policy routing goes by: outer datagrams without it would go into the device. 0: none. */
  get markNeeded(): number {
    return this.#made.defaults.size === 0 ? 0 : this.#mark;
  }

  /**
   * Makes and takes away what differs. When it fails nothing has changed.
   * @throws as `up` does
   */
  updateRoutes(prefixes: readonly Prefix[]): Promise<void> {
    return this.#inTurn(async () => {
      assert(!this.#down, "routes of a network that is up");
      await this.#setRoutes(prefixes);
    });
  }

  /**
   * Adds what is missing, takes away what is no longer wanted, and the routes of a family that has none left: give
   * those that are wanted to `updateRoutes` after it. @throws as `up` does
   */
  updateAddresses(addresses: readonly InterfaceAddress[]): Promise<void> {
    return this.#inTurn(async () => {
      assert(!this.#down, "addresses of a network that is up");
      const { name } = this.#plan;
      const former = this.#addresses.map(formatInterfaceAddress);
      const wanted = addresses.map(formatInterfaceAddress);
      const added = wanted.filter((address) => !former.includes(address));
      const removed = former.filter((address) => !wanted.includes(address));
      if (added.length + removed.length === 0) return;
      if (this.#outlives) {
        this.#deviceSteps = [...this.#deviceSteps, ...added.map((address): UndoStep => ({ kind: "address", address }))];
        this.#writeJournal(this.#made);
      }
      await this.#ip.batch(added.map((address) => `addr add ${address} dev ${name}`));
      this.#addresses = [...this.#addresses, ...addresses];
      const problems = await this.#ip.undoBatch(removed.map((address) => `addr del ${address} dev ${name}`));
      if (problems.length > 0) throw hostFailure(`addresses of ${name}`, problems.join("; "));
      this.#addresses = addresses;
      const families = addresses.map(familyOf);
      // The kernel takes them away with the last address of their family.
      const routes = [...this.#made.routes].filter(([, { prefix }]) => families.includes(familyOf(prefix)));
      this.#made = { ...this.#made, routes: new Map(routes) };
      this.#writeJournal(this.#made);
    });
  }

  /** Of the main table: what goes by other devices, and can't go by this one as well. */
  async takenRoutes(): Promise<Prefix[]> {
    const found: Prefix[] = [];
    for (const family of [4, 6] as const) {
      const rows = await this.#ip.listIfAny(routeRow, [`-${family}`, "route", "show"]);
      for (const { dst, dev } of rows) {
        const prefix = dev === this.#plan.name ? undefined : parseRoute(dst, family);
        if (prefix !== undefined) found.push(prefix);
      }
    }
    return found;
  }

  /** Undoes all of it; once. @throws INTERNAL naming what could not be undone: it stays in the journal */
  down(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#down) return;
      this.#down = true;
      const problems = await this.#undoEverything();
      if (problems.length === 0) return;
      throw new WirebadgeError("INTERNAL", `${this.#plan.name}: not all was undone: ${problems.join("; ")}`, {
        hint: "the next start tries it again",
      });
    });
  }

  /**
   * Of these addresses of peers, those whose datagrams the host would route into the device itself. wg-quick guards
   * against it only by a default route's mark; with other AllowedIPs that hold their peer's endpoint it makes the route
   * as asked. So do we: the caller says so in the log and drops such packets.
   */
  async findLoops(endpoints: readonly Address[]): Promise<Address[]> {
    const found = await routesTo(this.#ip, endpoints, this.#mark);
    return found.filter(({ device }) => device === this.#plan.name).map(({ address }) => address);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => undefined); // told to whoever asked for it; the next in turn is another matter
    return done;
  }

  async #setUpDevice(): Promise<void> {
    const { name, mtuBytes } = this.#plan;
    const rows = await this.#ip.list(addressRow, ["addr", "show", "dev", name]);
    const there = new Set(rows.flatMap((row) => row.addr_info.map(({ local, prefixlen }) => `${local}/${prefixlen}`)));
    const missing = this.#plan.addresses.map(formatInterfaceAddress).filter((address) => !there.has(address));
    const isUp = this.#link.flags.includes("UP");
    const mode = this.#link.inet6_addr_gen_mode;
    // Like a WireGuard device: no link-local address, so nothing to solicit routers with.
    const quiet = !isUp && mode !== undefined && mode !== "none";
    if (this.#outlives) {
      this.#deviceSteps = [
        linkStep(isUp, this.#link.mtu, quiet ? mode : undefined),
        ...missing.map((address): UndoStep => ({ kind: "address", address })),
      ];
      this.#writeJournal(NOTHING_MADE);
    }
    const lines = [
      ...(quiet ? [`link set dev ${name} addrgenmode none`] : []),
      ...missing.map((address) => `addr add ${address} dev ${name}`),
      ...(isUp && this.#link.mtu === mtuBytes ? [] : [`link set mtu ${mtuBytes} up dev ${name}`]),
    ];
    await this.#ip.batch(lines);
  }

  async #setRoutes(prefixes: readonly Prefix[]): Promise<void> {
    const former = this.#made;
    const { routes, defaults } = planRoutes(prefixes, this.#plan.table, await this.#foreignRoutes());
    const wanted = new Map(routes.map((route) => [routeKey(route), route]));
    const addedRoutes = [...wanted].filter(([key]) => !former.routes.has(key));
    const addedDefaults = new Map<Family, readonly UndoStep[]>();
    if (defaults.length > 0) await this.#chooseMark();
    for (const family of defaults) {
      if (!former.defaults.has(family)) addedDefaults.set(family, await this.#defaultSteps(family));
    }
    const added: Made = { routes: new Map(addedRoutes), defaults: addedDefaults };
    const both: Made = {
      routes: new Map([...former.routes, ...addedRoutes]),
      defaults: new Map([...former.defaults, ...addedDefaults]),
    };
    this.#writeJournal(both);
    try {
      await this.#ip.batch(addedRoutes.map(([, route]) => `route add ${this.#routeText(route)}`));
      for (const [family, steps] of addedDefaults) await this.#makeDefault(family, steps);
    } catch (error) {
      const problems = await this.#takeAway(added).catch((failure: unknown) => [String(failure)]);
      if (problems.length === 0) this.#writeJournal(former);
      else this.#made = both; // down() tries it again
      throw error;
    }
    this.#made = both;
    const removed: Made = {
      routes: new Map([...former.routes].filter(([key]) => !wanted.has(key))),
      defaults: new Map([...former.defaults].filter(([family]) => !defaults.includes(family))),
    };
    if (removed.routes.size + removed.defaults.size === 0) return;
    const problems = await this.#takeAway(removed);
    if (problems.length > 0) throw hostFailure(`routes of ${this.#plan.name}`, problems.join("; "));
    this.#made = {
      routes: new Map([...both.routes].filter(([key]) => !removed.routes.has(key))),
      defaults: new Map([...both.defaults].filter(([family]) => !removed.defaults.has(family))),
    };
    this.#writeJournal(this.#made);
  }

  /** Routes by the device in the main table that we have not made: of its addresses, by the kernel. */
  async #foreignRoutes(): Promise<Prefix[]> {
    if (this.#plan.table !== "auto") return [];
    const found: Prefix[] = [];
    for (const family of [4, 6] as const) {
      const rows = await this.#ip.listIfAny(routeRow, [`-${family}`, "route", "show", "dev", this.#plan.name]);
      for (const { dst } of rows) {
        const prefix = parseRoute(dst, family);
        if (prefix !== undefined && !this.#made.routes.has(routeKey({ prefix, table: undefined }))) found.push(prefix);
      }
    }
    return found;
  }

  /** wg-quick: 51820, or the next whose table is empty; also none that another process of ours has. */
  async #chooseMark(): Promise<void> {
    if (this.#mark !== 0) return;
    const taken = new Set(this.#otherSteps().flatMap((step) => (step.kind === "rule" ? [step.mark] : [])));
    let mark = FIRST_MARK;
    while (taken.has(mark) || (await this.#hasRoutes(mark))) mark++;
    await this.#options.setMark?.(mark);
    this.#mark = mark;
  }

  async #hasRoutes(table: number): Promise<boolean> {
    for (const family of ["-4", "-6"]) {
      const rows = await this.#ip.listIfAny(routeRow, [family, "route", "show", "table", `${table}`]);
      if (rows.length > 0) return true;
    }
    return false;
  }

  /** Of other processes in this network namespace. */
  #otherSteps(): UndoStep[] {
    const { networkNamespace, bootId, pid } = this.#tools.place();
    return readJournals(this.#options.journalFolder)
      .filter(({ place }) => place.networkNamespace === networkNamespace && place.bootId === bootId)
      .filter(({ place, device }) => place.pid !== pid || device.name !== this.#plan.name)
      .flatMap(({ steps }) => steps);
  }

  /** All that the policy routing of one family will change beyond the device. */
  async #defaultSteps(family: Family): Promise<UndoStep[]> {
    const rows = await this.#ip.list(ruleRow, [`-${family}`, "rule", "show"]);
    const priorities = rows.map((row) => row.priority);
    const first = nextRulePriority(priorities);
    const second = nextRulePriority([...priorities, first]);
    const steps: UndoStep[] = [
      { kind: "rule", family, priority: first, mark: this.#mark },
      { kind: "rule", family, priority: second, mark: null },
      ...this.#guardSteps(family),
    ];
    if (family === 6) return steps;
    // Another process of ours may have set it: then what was before that is what the last of us puts back.
    const others = this.#otherSteps().find((step) => step.kind === "sysctl" && step.key === SRC_VALID_MARK);
    const former = others?.kind === "sysctl" ? others.former : this.#tools.readSysctl(SRC_VALID_MARK);
    return [...steps, { kind: "sysctl", key: SRC_VALID_MARK, former, set: "1" }];
  }

  #guardSteps(family: Family): UndoStep[] {
    if (this.#tools.has("nft")) return [{ kind: "nft", family }];
    const text = "`nft` is not there: packets forged for the tunnel's addresses are not shut out (install nftables)";
    this.#options.logger.warn({ event: "no-spoof-guard", device: this.#plan.name, family }, text);
    return [];
  }

  /** Its rules come last: until they are there nothing goes by the new table. */
  async #makeDefault(family: Family, steps: readonly UndoStep[]): Promise<void> {
    const { name } = this.#plan;
    if (family === 4) this.#setSrcValidMark();
    if (steps.some((step) => step.kind === "nft")) await this.#guardAgainstSpoofing(family);
    await this.#ip.batch([`route add ${this.#routeText(this.#defaultRoute(family))}`]);
    const rules = steps.flatMap((step) => (step.kind === "rule" ? [`rule add ${ruleText(step)}`] : []));
    await this.#ip.batch(rules, [`-${family}`]);
    this.#options.logger.info(
      { event: "default-route", device: name, family, mark: this.#mark },
      "default route taken",
    );
  }

  #defaultRoute(family: Family): PlannedRoute {
    const zero = parseAddress(family === 4 ? "0.0.0.0" : "::");
    assert(zero !== undefined, "an address of zeros");
    return { prefix: { address: zero, bits: family === 4 ? 96 : 0 }, table: this.#mark };
  }

  /** Without it the strict reverse path filter drops replies to marked datagrams (rp_filter = 1). */
  #setSrcValidMark(): void {
    try {
      if (this.#tools.readSysctl(SRC_VALID_MARK) !== "1") this.#tools.writeSysctl(SRC_VALID_MARK, "1");
    } catch (error) {
      throw new WirebadgeError("FORBIDDEN", `${SRC_VALID_MARK} can't be set (${errnoOf(error)})`, {
        hint: `a default route by a mark needs it: set it outside, as docker run --sysctl ${SRC_VALID_MARK}=1`,
      });
    }
  }

  async #guardAgainstSpoofing(family: Family): Promise<void> {
    const { name } = this.#plan;
    const own = this.#addresses.filter(({ address }) => isV4(address) === (family === 4));
    const addresses = own.map(({ address }) => formatAddress(address));
    const script = spoofGuard(family, nftTable(name), name, addresses, this.#mark);
    const ran = await this.#tools.run("nft", ["-f", "-"], script);
    if (ran?.code !== 0) throw hostFailure("nft -f -", ran?.stderr ?? "it has gone");
  }

  #routeText(route: PlannedRoute): string {
    return routeText(routeStep(route), this.#plan.name);
  }

  async #takeAway(made: Made): Promise<string[]> {
    const steps = [...made.defaults].flatMap(([family, rows]) => [...rows, routeStep(this.#defaultRoute(family))]);
    return await this.#undoer.undo([...[...made.routes.values()].map(routeStep), ...steps]);
  }

  #writeJournal(made: Made): void {
    const beyond = [...made.defaults.values()].flat();
    if (!this.#outlives) {
      this.#journal.write(beyond);
      return;
    }
    const tables = [...made.defaults.keys()].map((family) => this.#defaultRoute(family));
    const routes = [...made.routes.values(), ...tables].map(routeStep);
    this.#journal.write([...this.#deviceSteps, ...routes, ...beyond]);
  }

  async #undoEverything(): Promise<string[]> {
    const made = this.#made;
    const problems = await this.#takeAwayAtEnd(made);
    if (problems.length > 0) return problems;
    this.#made = NOTHING_MADE;
    this.#deviceSteps = [];
    this.#journal.write([]);
    return [];
  }

  /** A device that ends with us loses its routes and addresses by being down; another one by one. */
  async #takeAwayAtEnd(made: Made): Promise<string[]> {
    if (this.#outlives) {
      const routes = [
        ...made.routes.values(),
        ...[...made.defaults.keys()].map((family) => this.#defaultRoute(family)),
      ];
      const steps = [...this.#deviceSteps, ...routes.map(routeStep), ...[...made.defaults.values()].flat()];
      return await this.#undoer.undo(steps);
    }
    const link = linkStep(false, this.#plan.mtuBytes, undefined);
    return await this.#undoer.undo([link, ...[...made.defaults.values()].flat()]);
  }
}

function linkStep(up: boolean, mtuBytes: number, mode: string | undefined): UndoStep {
  const known = ["eui64", "none", "stable_secret", "random"] as const;
  return { kind: "link", up, mtuBytes, addressMode: known.find((name) => name === mode) ?? null };
}

const routeStep = ({ prefix, table }: PlannedRoute): UndoStep & { kind: "route" } => ({
  kind: "route",
  prefix: formatPrefix(prefix),
  table: table ?? null,
});

/** "default", "10.0.0.0/24" or a bare address. */
function parseRoute(text: string, family: Family): Prefix | undefined {
  const prefix = parsePrefix(text === "default" ? (family === 4 ? "0.0.0.0/0" : "::/0") : text);
  return prefix !== undefined && familyOf(prefix) === family ? prefix : undefined;
}

interface FoundRoute {
  readonly address: Address;
  readonly device: string;
}

/** `ip route get`; addresses that no route leads to are left out. */
async function routesTo(ip: IpCommand, addresses: readonly Address[], mark: number): Promise<FoundRoute[]> {
  const lines = addresses.map((address) => `route get ${formatAddress(address)}${mark === 0 ? "" : ` mark ${mark}`}`);
  const text = await ip.ask(lines);
  return text.split("\n").flatMap((line) => {
    const match = /^(?:[a-z]+ )?([0-9a-f.:]+) .*?\bdev (\S+)/.exec(line);
    const address = match === null ? undefined : parseAddress(match[1]!);
    if (match === null || address === undefined) return [];
    return [{ address, device: match[2]! }];
  });
}
