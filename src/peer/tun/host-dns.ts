// Enters the resolver of `up --tun` into the host's, where that is systemd-resolved: for the network's own domains and
// this device alone (resolvectl(1)), so that all other names are asked as before. Undone at the end, and after kill -9
// at the next start. Where it can't be entered nothing is changed, and a line says how to do it by hand.
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { type Address, formatAddress } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { WirebadgeError } from "../../base/errors.ts";
import { errnoOf } from "../real-network.ts";
import { type HostChangeOptions, type HostTools, hostTools, IpCommand, type Ran } from "./host-tools.ts";
import { linkRow, Undoer } from "./undo.ts";
import { DEVICE_NAME, UndoJournal } from "./undo-journal.ts";

export interface HostDnsPlan {
  /** Of a device that is up. */
  readonly device: string;
  /** `resolverAddressesOf(view)`, routed into the device. */
  readonly servers: readonly Address[];
  /** `OverlayNames.zones`: "staging.internal", "66.10.in-addr.arpa"; the first is of names. */
  readonly zones: readonly string[];
}

export interface EnteredDns {
  /** Undefined: entered. Else why not, in words; nothing was changed. */
  readonly why: string | undefined;
  /** Entered, but programs on this host may not ask it; in words. */
  readonly note: string | undefined;
  /** Undoes it; once. @throws INTERNAL naming what could not be undone: it stays in the journal */
  leave(): Promise<void>;
}

const NEW_DEVICE_TRIES = 10; // systemd-resolved hears of a new device a moment after it is there
const NEW_DEVICE_WAIT_MS = 100;
const NEW_DEVICE = /not known|unknown|No such device/i;

/** How a user enters it, or says it to another resolver: one line. */
export function namesByHand(plan: HostDnsPlan, tools: Pick<HostTools, "has"> = hostTools): string {
  const servers = plan.servers.map(formatAddress);
  const [zone = "internal"] = plan.zones;
  if (!tools.has("resolvectl")) {
    return `let this host's resolver ask ${servers.join(" or ")} for ${zone} (dnsmasq: server=/${zone}/${servers[0]})`;
  }
  const domains = plan.zones.map((each) => `'~${each}'`).join(" ");
  const { device } = plan;
  return [
    `resolvectl default-route ${device} no`,
    `resolvectl domain ${device} ${domains}`,
    `resolvectl dns ${device} ${servers.join(" ")}`,
  ].join(" && ");
}

/**
 * Tells systemd-resolved of the network's names. Call it when the device is up and its resolver answers, and after
 * `HostNetwork.up`, which undoes what killed processes have left.
 * @throws STATE_UNREADABLE when the journal can't be written
 */
export async function enterHostDns(plan: HostDnsPlan, options: HostChangeOptions): Promise<EnteredDns> {
  assert(DEVICE_NAME.test(plan.device), "a device's name");
  const tools = options.tools ?? hostTools;
  const why = await unusable(plan, tools);
  if (why !== undefined) return notEntered(why);
  const { device } = plan;
  const [link] = await new IpCommand(tools).list(linkRow, ["link", "show", "dev", device]);
  assert(link !== undefined, "a device that is shown has a row");
  const own = { name: device, index: link.ifindex };
  const journal = new UndoJournal(options.journalFolder, tools.place(), own, "dns");
  journal.write([{ kind: "names" }]);
  const undo = async (): Promise<string[]> => {
    const problems = await new Undoer(tools, own).undo([{ kind: "names" }]);
    if (problems.length === 0) journal.write([]);
    return problems;
  };
  const failure = await tellResolved(plan, tools);
  if (failure !== undefined) {
    const problems = await undo();
    for (const problem of problems) {
      options.logger.warn({ event: "undo-failed", device, why: problem }, `${device}: ${problem}`);
    }
    return notEntered(failure);
  }
  options.logger.info({ event: "names-entered", device, zones: plan.zones }, "systemd-resolved asks for its names");
  let left = false;
  return {
    why: undefined,
    note: asksResolved() ? undefined : NOT_ASKED,
    async leave() {
      if (left) return;
      left = true;
      const problems = await undo();
      if (problems.length === 0) return;
      throw new WirebadgeError("INTERNAL", `names of ${device}: not undone: ${problems.join("; ")}`, {
        hint: `the next start tries it again; by hand it is \`resolvectl revert ${device}\``,
      });
    },
  };
}

function notEntered(why: string): EnteredDns {
  return { why, note: undefined, leave: async () => undefined };
}

async function resolvectl(tools: HostTools, args: readonly string[]): Promise<Ran | undefined> {
  try {
    return await tools.run("resolvectl", args);
  } catch (error) {
    return { code: -1, stdout: "", stderr: errnoOf(error) };
  }
}

/** Asks only. */
async function unusable(plan: HostDnsPlan, tools: HostTools): Promise<string | undefined> {
  if (plan.servers.length === 0 || plan.zones.length === 0) return "the network has no names that can be looked up";
  if (!tools.has("resolvectl")) return "systemd-resolved is not on this host";
  if (!tools.isOfServices()) return "systemd-resolved is not in this network namespace";
  for (let attempt = 1; ; attempt++) {
    const ran = await resolvectl(tools, ["dns", plan.device]);
    if (ran?.code === 0) {
      const others = /\): *(\S.*)$/m.exec(ran.stdout)?.[1]; // "Link 7 (wb0): 10.0.0.1"
      return others === undefined ? undefined : `${plan.device} has DNS servers of somebody else's (${others})`;
    }
    if (attempt === NEW_DEVICE_TRIES || !NEW_DEVICE.test(ran?.stderr ?? "")) return said("resolvectl dns", ran);
    await delay(NEW_DEVICE_WAIT_MS);
  }
}

/** Undefined: done. The servers come last: until then no name is asked of them. */
async function tellResolved(plan: HostDnsPlan, tools: HostTools): Promise<string | undefined> {
  const { device } = plan;
  const needed = [
    ["default-route", device, "no"],
    ["domain", device, ...plan.zones.map((zone) => `~${zone}`)],
    ["dns", device, ...plan.servers.map(formatAddress)],
  ];
  // This host asks itself, over no wire: neither signed nor encrypted. Nor are names shouted into the tunnel.
  const wished = ["dnssec", "dnsovertls", "llmnr", "mdns"].map((what) => [what, device, "no"]);
  for (const args of wished) await resolvectl(tools, args); // of an older systemd, or built without it: as it was
  for (const args of needed) {
    const ran = await resolvectl(tools, args);
    if (ran?.code !== 0) return said(`resolvectl ${args[0]}`, ran);
  }
  return undefined;
}

function said(what: string, ran: Ran | undefined): string {
  const line = ran?.stderr.split("\n").find((text) => text.trim() !== "");
  return `${what}: ${line?.trim() ?? "it failed without a word"}`;
}

const NOT_ASKED =
  "programs here may not ask systemd-resolved: /etc/resolv.conf names another, and nss-resolve is not in use";

/** nss-resolve, or its stub in resolv.conf (systemd-resolved(8)). */
export function asksResolved(read: (path: string) => string = (path) => readFileSync(path, "latin1")): boolean {
  const text = (path: string): string => {
    try {
      return read(path);
    } catch {
      return "";
    }
  };
  if (/^\s*hosts:.*\bresolve\b/m.test(text("/etc/nsswitch.conf"))) return true;
  return /^\s*nameserver\s+127\.0\.0\.5[34]\s*$/m.test(text("/etc/resolv.conf"));
}
