// A gateway whose kernel forwards: ip_forward and one nftables table, made only if asked for, undone at the end and
// after kill -9. What may leave a tunnel is judged before (forward-side.ts); the table holds the same lines once more,
// coarser, lets nobody into the overlay by this host, and hides callers behind its address.
import { z } from "zod";
import { type Address, formatAddress, formatPrefix, isV4, type Prefix } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { WirebadgeError } from "../../base/errors.ts";
import { errnoOf } from "../real-network.ts";
import { type HostChangeOptions, type HostTools, hostFailure, hostTools, IpCommand } from "./host-tools.ts";
import { type Family, familyOf, isCovered, lengthOf, sortPrefixes } from "./route-plan.ts";
import { forwardTableName, linkRow, Undoer } from "./undo.ts";
import { DEVICE_NAME, FORWARDING, readJournals, UndoJournal, type UndoStep } from "./undo-journal.ts";

export interface ForwardHostPlan {
  /** Of a device that is there. */
  readonly device: string;
  /** Its own overlay addresses. */
  readonly ownAddresses: readonly Address[];
  /** The network's ULA /48 and IPv4 pool: where callers come from. */
  readonly overlay: readonly Prefix[];
  /** Routes of which packets are forwarded. */
  readonly served: readonly Prefix[];
}

const KEYS: Readonly<Record<Family, (typeof FORWARDING)[number]>> = { 4: FORWARDING[0], 6: FORWARDING[1] };
const PROTO_RA = "9"; // rtnetlink(7): RTPROT_RA, as `ip -N` shows it
const defaultRow = z.object({ dev: z.string().optional(), protocol: z.string().optional() });

/** `routers`: families that this host forwarded of before. Of the others it forwards for tunnels alone. */
export function forwardTable(plan: ForwardHostPlan, routers: ReadonlySet<Family>): string {
  const { device } = plan;
  const table = `inet ${forwardTableName(device)}`;
  const inside = `iifname "${device}"`;
  const outside = `oifname "${device}"`;
  const families = [
    { family: 4, ip: "ip", name: "ipv4" },
    { family: 6, ip: "ip6", name: "ipv6" },
  ] as const;
  const lines = families.map(({ family, ip, name }) => {
    const own = plan.ownAddresses.filter((address) => isV4(address) === (family === 4)).map(formatAddress);
    const served = setOf(plan.served.filter((prefix) => familyOf(prefix) === family));
    const sources = plan.overlay.filter((prefix) => familyOf(prefix) === family).map(formatPrefix);
    const isRouter = routers.has(family);
    return {
      input: own.length === 0 ? `${inside} meta nfproto ${name} drop` : `${inside} ${ip} daddr != { ${own} } drop`,
      served:
        served === ""
          ? ""
          : `${inside} ${served === "all" ? `meta nfproto ${name}` : `${ip} daddr { ${served} }`} accept`,
      others: isRouter ? "" : `meta nfproto ${name} drop`,
      masquerade: sources.length === 0 ? "" : `oifname != "${device}" ${ip} saddr { ${sources} } masquerade`,
    };
  });
  const rules = (...texts: readonly string[]): string => texts.filter(Boolean).join("\n    ");
  return `add table ${table}
delete table ${table}
table ${table} {
  chain input {
    type filter hook input priority -10; policy accept;
    ${rules(...lines.map((line) => line.input))}
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    ${rules(
      `${inside} ${outside} drop`,
      `${inside} ct state invalid drop`, // it would go out under its own address
      ...lines.map((line) => line.served),
      `${inside} drop`,
      `${outside} ct state { established, related } accept`,
      `${outside} drop`,
      ...lines.map((line) => line.others),
    )}
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ${rules(...lines.map((line) => line.masquerade))}
  }
}
`;
}

/** Without those inside another, which nft takes for a conflict; "all" for a default route, which is no set. */
function setOf(prefixes: readonly Prefix[]): string {
  const kept: Prefix[] = [];
  for (const prefix of [...sortPrefixes(prefixes)].reverse()) if (!isCovered(prefix, kept)) kept.push(prefix);
  return kept.some((prefix) => lengthOf(prefix) === 0) ? "all" : kept.map(formatPrefix).join(", ");
}

export class HostForward {
  readonly #tools: HostTools;
  readonly #undoer: Undoer;
  readonly #journal: UndoJournal;
  readonly #journalFolder: string;
  #steps: readonly UndoStep[] = [];
  #routers = new Set<Family>();
  #table = "";
  #isDown = false;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(device: { name: string; index: number }, options: HostChangeOptions, tools: HostTools) {
    this.#tools = tools;
    this.#undoer = new Undoer(tools, device);
    this.#journalFolder = options.journalFolder;
    this.#journal = new UndoJournal(options.journalFolder, tools.place(), device, "forward");
  }

  /**
   * Sets all of it up, or nothing. Call it after `HostNetwork.up`.
   * @throws NATIVE_UNAVAILABLE without `nft`, FORBIDDEN, CONFLICT where IPv6 forwarding would cost the host its own
   * default route, STATE_UNREADABLE
   */
  static async up(plan: ForwardHostPlan, options: HostChangeOptions): Promise<HostForward> {
    assert(DEVICE_NAME.test(plan.device), "a device's name");
    const tools = options.tools ?? hostTools;
    if (!tools.has("nft")) {
      throw new WirebadgeError("NATIVE_UNAVAILABLE", "the program `nft` is not there: it says what is forwarded", {
        hint: "install the package nftables, or leave --ip-forward out: then no packet is forwarded by the kernel",
      });
    }
    const [link] = await new IpCommand(tools).list(linkRow, ["link", "show", "dev", plan.device]);
    assert(link !== undefined, "a device that is shown has a row");
    const forward = new HostForward({ name: plan.device, index: link.ifindex }, options, tools);
    try {
      await forward.#follow(plan);
    } catch (error) {
      for (const why of await forward.#undo()) options.logger.warn({ event: "undo-failed", why }, why);
      throw error;
    }
    return forward;
  }

  /** @throws as `up` does; then what was before stands */
  update(plan: ForwardHostPlan): Promise<void> {
    const done = this.#turn.then(async () => {
      if (!this.#isDown) await this.#follow(plan);
    });
    this.#turn = done.catch(() => undefined);
    return done;
  }

  /** @throws INTERNAL naming what could not be undone: it stays in the journal */
  async down(): Promise<void> {
    if (this.#isDown) return;
    this.#isDown = true;
    await this.#turn;
    const problems = await this.#undo();
    if (problems.length === 0) return;
    throw new WirebadgeError("INTERNAL", `forwarding: not all was undone: ${problems.join("; ")}`, {
      hint: "the next start tries it again",
    });
  }

  async #undo(): Promise<string[]> {
    const problems = await this.#undoer.undo(this.#steps);
    if (problems.length === 0) this.#journal.write([]);
    return problems;
  }

  async #follow(plan: ForwardHostPlan): Promise<void> {
    const wanted = new Set(plan.served.map(familyOf));
    const added = [...wanted].filter((family) => !this.#steps.some((step) => isOf(step, family)));
    const steps: UndoStep[] = [];
    for (const family of added) steps.push(await this.#sysctlStep(family));
    const table: UndoStep = { kind: "forward-table" };
    this.#steps = [...this.#steps.filter(({ kind }) => kind === "sysctl"), ...steps, table];
    this.#journal.write(this.#steps);
    for (const step of steps) {
      if (step.kind === "sysctl" && step.former === step.set) this.#routers.add(step.key === KEYS[4] ? 4 : 6);
    }
    // A family that is not forwarded of is left alone: "no router" would be this host's own affair.
    const leftAlone = ([4, 6] as const).filter((family) => !this.#steps.some((step) => isOf(step, family)));
    const text = forwardTable(plan, new Set([...this.#routers, ...leftAlone]));
    if (text !== this.#table) {
      const ran = await this.#tools.run("nft", ["-f", "-"], text);
      if (ran?.code !== 0) throw hostFailure("nft -f -", ran?.stderr ?? "it has gone");
      this.#table = text;
    }
    for (const step of steps) if (step.kind === "sysctl" && step.former !== step.set) this.#write(step.key, step.set);
  }

  async #sysctlStep(family: Family): Promise<UndoStep> {
    const key = KEYS[family];
    const now = this.#read(key);
    // Another device of ours may have set it: then what was before that is what the last of us puts back.
    const former = this.#formerOfOthers(key) ?? now;
    if (family === 6 && now === "0") await this.#checkRouterAdvertisements();
    return { kind: "sysctl", key, former, set: "1" };
  }

  #formerOfOthers(key: string): string | undefined {
    const { networkNamespace, bootId } = this.#tools.place();
    const steps = readJournals(this.#journalFolder)
      .filter(({ place }) => place.networkNamespace === networkNamespace && place.bootId === bootId)
      .flatMap((journal) => journal.steps);
    const step = steps.find((each) => each.kind === "sysctl" && each.key === key);
    return step?.kind === "sysctl" ? step.former : undefined;
  }

  /** A host that forwards takes no default route from routers any more, unless accept_ra is 2 (ip-sysctl.rst). */
  async #checkRouterAdvertisements(): Promise<void> {
    const rows = await new IpCommand(this.#tools).listIfAny(defaultRow, ["-6", "route", "show", "default"]);
    for (const { dev, protocol } of rows) {
      if (dev === undefined || (protocol !== PROTO_RA && protocol !== "ra")) continue;
      if (this.#read(`net.ipv6.conf.${dev}.accept_ra`) === "2") continue;
      throw new WirebadgeError("CONFLICT", `forwarding IPv6 would cost this host its default route by ${dev}`, {
        hint: `it comes from a router's advertisements: set net.ipv6.conf.${dev}.accept_ra=2 first`,
      });
    }
  }

  #read(key: string): string {
    try {
      return this.#tools.readSysctl(key);
    } catch (error) {
      throw new WirebadgeError("CONFLICT", `${key} can't be read (${errnoOf(error)})`, {
        hint: "is that family switched off here? then leave its routes out",
      });
    }
  }

  #write(key: string, value: string): void {
    try {
      this.#tools.writeSysctl(key, value);
    } catch (error) {
      throw new WirebadgeError("FORBIDDEN", `${key} can't be set (${errnoOf(error)})`, {
        hint: `set it outside, as docker run --sysctl ${key}=${value}`,
      });
    }
  }
}

function isOf(step: UndoStep, family: Family): boolean {
  return step.kind === "sysctl" && step.key === KEYS[family];
}
