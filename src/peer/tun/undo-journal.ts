// What was changed on the host beyond the TUN device, written down before it is changed: one file for each device and
// process, in a folder of our own. A process that was killed leaves its file behind, and the next start undoes what
// stands in it. Entries are values of a few known kinds: nothing in the file is ever run.
import { lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { getuid } from "node:process";
import { z } from "zod";
import { parseAddress, parsePrefix } from "../../base/address.ts";
import { WirebadgeError } from "../../base/errors.ts";
import { UNDO_JOURNAL_MAX_BYTES } from "../../base/limits.ts";
import { fsyncPath } from "../../io/fsync-path.ts";
import { errnoOf } from "../real-network.ts";
import { writeDurably } from "../state.ts";
import type { Place } from "./host-tools.ts";

export const DEVICE_NAME = /^[a-zA-Z0-9_=+.-]{1,15}$/; // wg-quick's
export const FORWARDING = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] as const;
export const SYSCTLS = ["net.ipv4.conf.all.src_valid_mark", ...FORWARDING] as const;

const FILE_NAME = /^(?:tun|dns|forward)-[a-zA-Z0-9_=+.-]{1,15}-\d{1,10}-\d{1,20}\.json(?:\.(\d{1,10})-(\d{1,20}))?$/;
const FOLDER_MODE = 0o700;
const WRITABLE_BY_OTHERS = 0o022;

const u32 = z.int().min(0).max(0xffffffff);
const family = z.union([z.literal(4), z.literal(6)]);
const setting = z.string().regex(/^\d{1,10}$/);

/** A change that the device's end does not undo. */
const stepSchema = z.discriminatedUnion("kind", [
  /** With a mark: `not fwmark MARK table MARK`; without: `table main suppress_prefixlength 0`. */
  z.strictObject({ kind: z.literal("rule"), family, priority: u32, mark: u32.nullable() }),
  /** The table of the device's name. */
  z.strictObject({ kind: z.literal("nft"), family }),
  z.strictObject({ kind: z.literal("sysctl"), key: z.enum(SYSCTLS), former: setting, set: setting }),
  // Of a device that stays when the process ends (made by somebody else, kept by `ip tuntap`):
  z.strictObject({ kind: z.literal("address"), address: z.string().refine((text) => isInterfaceAddress(text)) }),
  z.strictObject({
    kind: z.literal("route"),
    prefix: z.string().refine((text) => parsePrefix(text) !== undefined),
    table: u32.nullable(),
  }),
  z.strictObject({
    kind: z.literal("link"),
    up: z.boolean(),
    mtuBytes: u32,
    addressMode: z.enum(["eui64", "none", "stable_secret", "random"]).nullable(),
  }),
  /** The table that says what is forwarded from and to the device. */
  z.strictObject({ kind: z.literal("forward-table") }),
  /** What systemd-resolved was told of the device. */
  z.strictObject({ kind: z.literal("names") }),
]);
export type UndoStep = z.infer<typeof stepSchema>;

const journalSchema = z.strictObject({
  version: z.literal(1),
  place: z.strictObject({
    bootId: z.string().max(64),
    networkNamespace: z.string().max(64),
    pidNamespace: z.string().max(64),
    pid: z.int().min(0),
    start: z.string().max(20),
  }),
  device: z.strictObject({ name: z.string().regex(DEVICE_NAME), index: z.int().min(1) }),
  steps: z.array(stepSchema),
});
export type Journal = z.infer<typeof journalSchema>;

function isInterfaceAddress(text: string): boolean {
  return parsePrefix(text) !== undefined && parseAddress(text.split("/")[0]!) !== undefined;
}

function unreadable(path: string, what: string): WirebadgeError {
  return new WirebadgeError("STATE_UNREADABLE", `${path} ${what}`, {
    hint: "it lists what is to be undone in this host's network: see `ip rule` and `nft list tables`, then remove it",
  });
}

/** Ours, and closed to others' writing: it is done with our privileges. (No link either: its mode is 0777.) */
function checkOwner(path: string): void {
  const stat = lstatSync(path);
  const foreign = getuid !== undefined && stat.uid !== getuid();
  if (foreign || (stat.mode & WRITABLE_BY_OTHERS) !== 0) {
    throw unreadable(path, "may be written to by others");
  }
}

/** Makes the folder if need be. @throws STATE_UNREADABLE */
function openFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
  } catch (error) {
    throw new WirebadgeError("STATE_UNREADABLE", `${folder} can't be made (${errnoOf(error)})`, {
      hint: "what is changed on the host is written down there first: see that the folder above it is yours",
    });
  }
  if (!statSync(folder).isDirectory()) throw unreadable(folder, "is not a folder");
  checkOwner(folder);
}

/** The journal of one device of this process: of its network, its names, or what is forwarded by it. */
export class UndoJournal {
  readonly #folder: string;
  readonly #path: string;
  readonly #head: Omit<Journal, "steps">;
  #there = false;

  /** @throws STATE_UNREADABLE when the folder can't be used */
  constructor(folder: string, place: Place, device: Journal["device"], what: "tun" | "dns" | "forward" = "tun") {
    openFolder(folder);
    this.#folder = folder;
    this.#path = join(folder, `${what}-${device.name}-${place.pid}-${place.start || "0"}.json`);
    this.#head = { version: 1, place: { ...place }, device };
  }

  /** On return it is on the disk. No steps: no file. @throws STATE_UNREADABLE */
  write(steps: readonly UndoStep[]): void {
    const fresh = `${this.#path}.new`;
    try {
      if (steps.length === 0) {
        if (this.#there) rmSync(this.#path, { force: true });
      } else {
        rmSync(fresh, { force: true });
        writeDurably(fresh, `${JSON.stringify({ ...this.#head, steps })}\n`);
        renameSync(fresh, this.#path);
      }
      this.#there = steps.length > 0;
      fsyncPath(this.#folder);
    } catch (error) {
      rmSync(fresh, { force: true });
      throw unreadable(this.#path, `can't be written (${errnoOf(error)})`);
    }
  }
}

/** A journal on the disk. */
export interface FoundJournal extends Journal {
  readonly path: string;
  /** The process that was undoing it, if it was taken up and not ended. */
  readonly claim: { readonly pid: number; readonly start: string } | undefined;
}

/** Whole journals; half a file, whose rename never happened, is removed. @throws STATE_UNREADABLE */
export function readJournals(folder: string): FoundJournal[] {
  const stat = lstatSync(folder, { throwIfNoEntry: false });
  if (stat === undefined) return [];
  checkOwner(folder);
  return readdirSync(folder)
    .sort()
    .flatMap((name) => {
      const match = FILE_NAME.exec(name);
      const found = match === null ? undefined : readJournal(join(folder, name));
      if (match === null || found === undefined) return [];
      const claim = match[1] === undefined ? undefined : { pid: Number(match[1]), start: match[2]! };
      return [{ ...found, path: join(folder, name), claim }];
    });
}

/** Undefined: another process has just done away with it. */
function readJournal(path: string): Journal | undefined {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  checkOwner(path);
  if (!stat.isFile() || stat.size > UNDO_JOURNAL_MAX_BYTES) throw unreadable(path, "is not a journal");
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw unreadable(path, "is damaged: it is not JSON");
  }
  const parsed = journalSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw unreadable(path, `is damaged at ${JSON.stringify(parsed.error.issues[0]?.path.join(".") ?? "")}`);
}

const unclaimed = (path: string): string => path.replace(/\.json\..*$/, ".json");

/** Two starts at once: one of them gets it. Undefined: it was the other. */
export function claimJournal(found: FoundJournal, place: Place): string | undefined {
  const claimed = `${unclaimed(found.path)}.${place.pid}-${place.start || "0"}`;
  try {
    renameSync(found.path, claimed);
    return claimed;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw unreadable(found.path, `can't be taken up (${errnoOf(error)})`);
  }
}

/** For the next start. */
export function releaseJournal(claimed: string): void {
  renameSync(claimed, unclaimed(claimed));
}

export function removeJournal(path: string): void {
  rmSync(path, { force: true });
}
