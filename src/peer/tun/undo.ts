// Undoes what a journal lists: at an orderly end its own, at a start those of processes that were killed. Each step is
// looked up first and undone only where it is still as we made it; what is gone is no failure.
import { z } from "zod";
import type { WirebadgeError } from "../../base/errors.ts";
import { errnoOf } from "../real-network.ts";
import { type HostTools, hostTools, IpCommand } from "./host-tools.ts";
import {
  claimJournal,
  FORWARDING,
  type FoundJournal,
  type Journal,
  readJournals,
  releaseJournal,
  removeJournal,
  type SYSCTLS,
  type UndoStep,
} from "./undo-journal.ts";

export const ruleRow = z.object({
  priority: z.number(),
  not: z.null().optional(),
  fwmark: z.string().optional(),
  table: z.string().optional(),
  suppress_prefixlen: z.number().optional(),
});
export type RuleRow = z.infer<typeof ruleRow>;

export const linkRow = z.object({
  ifindex: z.number(),
  flags: z.array(z.string()),
  mtu: z.number(),
  linkinfo: z
    .object({
      info_kind: z.string().optional(),
      info_data: z.object({ persist: z.boolean().optional() }).optional(),
    })
    .optional(),
  inet6_addr_gen_mode: z.string().optional(),
});
export type LinkRow = z.infer<typeof linkRow>;

const MAIN_TABLE = 254; // rtnetlink(7): RT_TABLE_MAIN

/** "wirebadge-wg0" */
export const nftTable = (device: string): string => `wirebadge-${device}`;

/** "wirebadge-forward-wb0" */
export const forwardTableName = (device: string): string => `wirebadge-forward-${device}`;

/** How `ip rule add` and `ip rule del` are told of it. */
export function ruleText(step: UndoStep & { kind: "rule" }): string {
  const what = step.mark === null ? "table main suppress_prefixlength 0" : `not fwmark ${step.mark} table ${step.mark}`;
  return `${what} priority ${step.priority}`;
}

function isThisRule(row: RuleRow, step: UndoStep & { kind: "rule" }): boolean {
  if (row.priority !== step.priority) return false;
  if (step.mark === null) return row.suppress_prefixlen === 0 && Number(row.table) === MAIN_TABLE;
  return row.not === null && Number(row.fwmark) === step.mark && Number(row.table) === step.mark;
}

export function routeText(step: UndoStep & { kind: "route" }, device: string): string {
  return `${step.prefix} dev ${device}${step.table === null ? "" : ` table ${step.table}`}`;
}

/** Takes steps back in the order that gives the host its own routes first. */
export class Undoer {
  readonly #tools: HostTools;
  readonly #ip: IpCommand;
  readonly #device: Journal["device"];

  constructor(tools: HostTools, device: Journal["device"]) {
    this.#tools = tools;
    this.#ip = new IpCommand(tools);
    this.#device = device;
  }

  /** Gives back what could not be undone, in words. Throws only what keeps all of it from being tried. */
  async undo(steps: readonly UndoStep[]): Promise<string[]> {
    const of = <K extends UndoStep["kind"]>(kind: K): (UndoStep & { kind: K })[] =>
      steps.filter((step): step is UndoStep & { kind: K } => step.kind === kind);
    return [
      ...(await this.#names(of("names"))),
      ...(await this.#rules(of("rule"))),
      ...(await this.#deviceSteps(steps)),
      ...(await this.#tables(of("nft"))),
      ...(await this.#sysctls(of("sysctl"))),
      ...(await this.#forwardTable(of("forward-table"))), // after the sysctl: nothing is forwarded without it
    ];
  }

  async #rules(steps: readonly (UndoStep & { kind: "rule" })[]): Promise<string[]> {
    const problems: string[] = [];
    for (const family of [4, 6] as const) {
      const own = steps.filter((step) => step.family === family);
      if (own.length === 0) continue;
      const rows = await this.#ip.list(ruleRow, [`-${family}`, "rule", "show"]);
      const there = own.filter((step) => rows.some((row) => isThisRule(row, step)));
      const lines = there.map((step) => `rule del ${ruleText(step)}`);
      problems.push(...(await this.#ip.undoBatch(lines, [`-${family}`])));
    }
    return problems;
  }

  /** Only while it is the device that was changed: a later one of the same name is somebody else's. */
  async #deviceSteps(steps: readonly UndoStep[]): Promise<string[]> {
    const { name } = this.#device;
    const lines = steps.toReversed().flatMap((step) => {
      if (step.kind === "route") return [`route del ${routeText(step, name)}`];
      if (step.kind === "address") return [`addr del ${step.address} dev ${name}`];
      if (step.kind !== "link") return [];
      const mode = step.addressMode === null ? [] : [`link set dev ${name} addrgenmode ${step.addressMode}`];
      return [`link set dev ${name} mtu ${step.mtuBytes} ${step.up ? "up" : "down"}`, ...mode];
    });
    if (lines.length === 0) return [];
    return (await this.#isThere()) ? await this.#ip.undoBatch(lines) : [];
  }

  async #isThere(): Promise<boolean> {
    const { name, index } = this.#device;
    const [row] = await this.#ip.listIfAny(linkRow, ["link", "show", "dev", name]);
    return row?.ifindex === index;
  }

  /** systemd-resolved forgets a device that has gone. */
  async #names(steps: readonly UndoStep[]): Promise<string[]> {
    if (steps.length === 0 || !(await this.#isThere())) return [];
    const ran = await this.#tools.run("resolvectl", ["revert", this.#device.name]);
    if (ran === undefined) return ["`resolvectl` is no longer there"];
    return ran.code === 0 ? [] : [ran.stderr.trim()];
  }

  async #tables(steps: readonly (UndoStep & { kind: "nft" })[]): Promise<string[]> {
    if (steps.length === 0) return [];
    const names = steps.map(({ family }) => `table ${family === 4 ? "ip" : "ip6"} ${nftTable(this.#device.name)}`);
    // Added first, so that deleting one that isn't there is no failure; all in one transaction.
    const script = names.map((table) => `add ${table}\ndelete ${table}\n`).join("");
    const ran = await this.#tools.run("nft", ["-f", "-"], script);
    if (ran === undefined) return ["`nft` is no longer there"];
    return ran.code === 0 ? [] : [ran.stderr.trim()];
  }

  async #forwardTable(steps: readonly UndoStep[]): Promise<string[]> {
    if (steps.length === 0) return [];
    const table = `table inet ${forwardTableName(this.#device.name)}`;
    const ran = await this.#tools.run("nft", ["-f", "-"], `add ${table}\ndelete ${table}\n`);
    if (ran === undefined) return ["`nft` is no longer there"];
    return ran.code === 0 ? [] : [ran.stderr.trim()];
  }

  /** Somebody else's default route by mark, or another device of ours that is forwarded by. */
  async #isNeeded(key: (typeof SYSCTLS)[number]): Promise<boolean> {
    if (FORWARDING.some((each) => each === key)) {
      const ran = await this.#tools.run("nft", ["list", "tables", "inet"]);
      const own = forwardTableName(this.#device.name);
      const tables = ran?.stdout.match(/wirebadge-forward-\S+/g) ?? [];
      return tables.some((table) => table !== own);
    }
    const rows = await this.#ip.list(ruleRow, ["-4", "rule", "show"]);
    return rows.some((row) => row.not === null && row.fwmark !== undefined);
  }

  /** Left as it is while it is needed, or when it was changed after us. */
  async #sysctls(steps: readonly (UndoStep & { kind: "sysctl" })[]): Promise<string[]> {
    const problems: string[] = [];
    for (const { key, former, set } of steps) {
      if (await this.#isNeeded(key)) continue;
      try {
        if (former !== set && this.#tools.readSysctl(key) === set) this.#tools.writeSysctl(key, former);
      } catch (error) {
        problems.push(`${key}: ${errnoOf(error)}`);
      }
    }
    return problems;
  }
}

export interface Leftover {
  readonly device: string;
  readonly pid: number;
}

export interface LeftoversReport {
  readonly undone: readonly Leftover[];
  /** What of it could not be undone: it stands in the journal still. */
  readonly left: readonly (Leftover & { readonly why: string })[];
}

/** Does the process that wrote it live? In another pid namespace only its device can tell. */
async function isOwned(found: FoundJournal, tools: HostTools): Promise<boolean> {
  const here = tools.place();
  const { place, device, claim } = found;
  if (claim !== undefined && tools.startOf(claim.pid) === claim.start) return true;
  if (place.pidNamespace === here.pidNamespace) return tools.startOf(place.pid) === place.start;
  const [row] = await new IpCommand(tools).listIfAny(linkRow, ["link", "show", "dev", device.name]);
  return row?.ifindex === device.index;
}

/**
 * Undoes what killed processes have left on this host, in this network namespace. Journals of living processes and of
 * other namespaces are left alone; those of an earlier boot are forgotten, the reboot has undone them.
 * @throws STATE_UNREADABLE when a journal can't be read, NATIVE_UNAVAILABLE without `ip`
 */
export async function undoLeftovers(folder: string, tools: HostTools = hostTools): Promise<LeftoversReport> {
  const undone: Leftover[] = [];
  const left: (Leftover & { why: string })[] = [];
  const journals = readJournals(folder);
  if (journals.length === 0) return { undone, left };
  const here = tools.place();
  for (const found of journals) {
    const leftover = { device: found.device.name, pid: found.place.pid };
    if (found.place.bootId !== here.bootId) {
      removeJournal(found.path);
      continue;
    }
    if (found.place.networkNamespace !== here.networkNamespace || (await isOwned(found, tools))) continue;
    const claimed = claimJournal(found, here);
    if (claimed === undefined) continue;
    const problems = await undoAll(tools, found);
    if (problems.length === 0) {
      removeJournal(claimed);
      undone.push(leftover);
    } else {
      releaseJournal(claimed);
      left.push({ ...leftover, why: problems.join("; ") });
    }
  }
  return { undone, left };
}

async function undoAll(tools: HostTools, found: FoundJournal): Promise<string[]> {
  try {
    return await new Undoer(tools, found.device).undo(found.steps);
  } catch (error) {
    return [(error as WirebadgeError).message];
  }
}
