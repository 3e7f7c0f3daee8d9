// The state folder: 0700, one process at a time, state.json 0600 written so that a kill at any moment leaves the old
// or the new content, never half of one. What can't be read is never overwritten.
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { getuid, kill, pid } from "node:process";
import { toHex } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { STATE_FILE_MAX_BYTES } from "../base/limits.ts";
import { randomBytes } from "../base/random.ts";
import { fsyncPath } from "../io/fsync-path.ts";
import { osRandom } from "../io/os-random.ts";
import { LOCAL_API_SOCKET } from "./local-api-schema.ts";
import { errnoOf } from "./real-network.ts";
import { type PeerState, peerStateSchema } from "./state-schema.ts";

export const STATE_FILE = "state.json";
const LOCK_FILE = "peer.pid";
const FOLDER_MODE = 0o700;
const FILE_MODE = 0o600;
const OPEN_TO_OTHERS = 0o077;
const FINGERPRINT_CHARACTERS = 8;

/**
 * `$XDG_STATE_HOME/wirebadge`, else `~/.local/state/wirebadge`: one folder below it for each (coordinator, identity).
 */
export function defaultStateRoot(env: NodeJS.ProcessEnv): string {
  return join(env["XDG_STATE_HOME"] || join(homedir(), ".local", "state"), "wirebadge");
}

/** `agent-coder@3fb1c2d4`: the identity, and the first characters of the coordinator's Noise key. */
export function stateFolderName(coordinatorKey: Uint8Array, identity: string): string {
  const safe = identity.toLowerCase().replace(/[^a-z0-9._-]/g, "-");
  return `${safe}@${fingerprintOf(coordinatorKey)}`;
}

/** Before the coordinator has said whose token it is. */
export function joiningFolderName(coordinatorKey: Uint8Array, tokenId: string): string {
  return stateFolderName(coordinatorKey, `joining-${tokenId}`);
}

function fingerprintOf(coordinatorKey: Uint8Array): string {
  return toHex(coordinatorKey).slice(0, FINGERPRINT_CHARACTERS);
}

/** Folders under the root that hold a state, in the order of their names. */
export function listStateFolders(root: string): readonly string[] {
  if (!existsSync(root)) return [];
  const names = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const folders = names.map((entry) => join(root, entry.name)).sort();
  return folders.filter((folder) => existsSync(join(folder, STATE_FILE)));
}

/**
 * The folder of an earlier run with the same token, else the one to make. A restart so finds its identity again.
 * Folders that can't be read are passed over: they are somebody's, not this token's.
 */
export function findStateFolder(root: string, coordinatorKey: Uint8Array, tokenId: string): string {
  const suffix = `@${fingerprintOf(coordinatorKey)}`;
  for (const folder of listStateFolders(root)) {
    if (!basename(folder).includes(suffix)) continue;
    try {
      if (readState(folder)?.tokenId === tokenId) return folder;
    } catch (error) {
      if (!(error instanceof WirebadgeError)) throw error;
    }
  }
  return join(root, joiningFolderName(coordinatorKey, tokenId));
}

function unreadable(path: string, what: string, hint?: string): WirebadgeError {
  // Neither a cause nor the parser's words: both may quote the file, and the file holds keys.
  return new WirebadgeError("STATE_UNREADABLE", `${path} ${what}`, {
    hint: hint ?? "restore it from a backup, or move the folder away and join anew with another token",
  });
}

const WHY_NOT: Readonly<Record<string, string>> = {
  ENOSPC: "make room on the disk that it is on",
  EDQUOT: "this user's share of the disk is used up: make room",
  EROFS: "its file system is read-only: choose another folder with --state, or mount it for writing",
  EACCES: "it belongs to somebody else: run as that user, or choose another folder with --state",
  EPERM: "it belongs to somebody else: run as that user, or choose another folder with --state",
  ENOENT: "it can't be made there: see that the folder above it may be written to",
  EMFILE: "this process may not open more files: raise the limit (ulimit -n)",
};

function unwritable(path: string, error: unknown): WirebadgeError {
  const errno = errnoOf(error);
  const hint = WHY_NOT[errno] ?? "see that its folder is yours and that the disk has room";
  return unreadable(path, `can't be written (${errno})`, hint);
}

function checkMode(path: string): void {
  const stat = lstatSync(path);
  if (getuid !== undefined && stat.uid !== getuid()) {
    throw unreadable(path, "belongs to another user", "run as that user, or choose another folder with --state");
  }
  if ((stat.mode & OPEN_TO_OTHERS) !== 0) {
    throw unreadable(path, "is open to other users", `private keys are kept here: chmod go= ${path}`);
  }
}

/** A folder that somebody made for this, empty or with a state in it, is closed; any other is left as it is. */
function closeToOthers(folder: string): void {
  const stat = statSync(folder);
  const loose = (stat.mode & OPEN_TO_OTHERS) !== 0 && (getuid === undefined || stat.uid === getuid());
  const names = loose ? readdirSync(folder) : [];
  if (loose && (names.length === 0 || names.includes(STATE_FILE))) chmodSync(folder, FOLDER_MODE);
  checkMode(folder);
}

/** Undefined: there is none yet. @throws STATE_UNREADABLE */
export function readState(folder: string): PeerState | undefined {
  const path = join(folder, STATE_FILE);
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  checkMode(path);
  if (!stat.isFile() || stat.size > STATE_FILE_MAX_BYTES) throw unreadable(path, "is not a state file");
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch {
    throw unreadable(path, "is damaged: it is not JSON");
  }
  const version: unknown = typeof json === "object" && json !== null && "version" in json ? json.version : undefined;
  if (typeof version === "number" && version > 1) {
    throw unreadable(path, "was written by a newer wirebadge", "upgrade wirebadge on this machine");
  }
  const parsed = peerStateSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const where = parsed.error.issues[0]?.path.join(".") ?? "";
  throw unreadable(path, `is damaged${where === "" ? "" : ` at ${JSON.stringify(where)}`}`);
}

/** Starts in clock ticks since boot: tells a reused pid from the process that wrote the lock. */
export function startOf(process: number): string {
  try {
    const stat = readFileSync(`/proc/${process}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  } catch {
    return ""; // no /proc here, or no such process
  }
}

function isAlive(process: number): boolean {
  try {
    kill(process, 0);
    return true;
  } catch (error) {
    return errnoOf(error) === "EPERM";
  }
}

/** The pid that holds the lock; undefined: nobody alive. */
function holderOf(lock: string): number | undefined {
  const match = /^(\d{1,10}) (\d*)\n$/.exec(lock);
  if (match === null) return undefined;
  const process = Number(match[1]);
  if (!isAlive(process)) return undefined;
  const start = startOf(process);
  return start !== "" && match[2] !== "" && start !== match[2] ? undefined : process;
}

function readLock(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Takes the lock by a hard link, which exists whole or not at all. One that a killed process left is moved aside
 * first; if two starters do that at once, the link decides.
 * @throws STATE_LOCKED
 */
function takeLock(folder: string): void {
  const path = join(folder, LOCK_FILE);
  const own = join(folder, `${LOCK_FILE}.${pid}.${toHex(randomBytes(osRandom, 6))}`);
  try {
    writeDurably(own, `${pid} ${startOf(pid)}\n`);
    for (let attempt = 0; attempt < 8; attempt++) {
      try {
        linkSync(own, path);
        return;
      } catch (error) {
        if (errnoOf(error) !== "EEXIST") throw error;
      }
      const seen = readLock(path);
      const holder = seen === undefined ? undefined : holderOf(seen);
      if (holder !== undefined) throw locked(folder, holder);
      if (seen !== undefined) removeStaleLock(path, seen);
    }
    throw locked(folder, undefined);
  } finally {
    rmSync(own, { force: true });
  }
}

/** Only the stale one: if another starter's fresh lock was caught, it is put back. */
function removeStaleLock(path: string, seen: string): void {
  const aside = `${path}.stale.${pid}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw error;
  }
  try {
    if (readLock(aside) !== seen) linkSync(aside, path);
  } finally {
    rmSync(aside, { force: true });
  }
}

function locked(folder: string, holder: number | undefined): WirebadgeError {
  const who = holder === undefined ? "another process" : `process ${holder}`;
  return new WirebadgeError("STATE_LOCKED", `the state folder ${folder} is in use by ${who}`, {
    hint: "one process runs a session; end that one, or give this one a folder of its own with --state",
  });
}

/** Content first, then the name that makes it visible. */
export function writeDurably(path: string, text: string): void {
  const fd = openSync(path, "wx", FILE_MODE);
  try {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** A locked state folder. `release` it at the end; after kill -9 the next start sees that nobody holds it. */
export class StateFolder {
  #path: string;
  #held = true;

  private constructor(path: string) {
    this.#path = path;
  }

  /** Makes the folder if need be. @throws STATE_UNREADABLE, STATE_LOCKED */
  static open(path: string): StateFolder {
    const folder = resolve(path);
    try {
      mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
      if (!statSync(folder).isDirectory()) throw unreadable(folder, "is not a folder");
      closeToOthers(folder);
      takeLock(folder);
      return new StateFolder(folder);
    } catch (error) {
      if (error instanceof WirebadgeError) throw error;
      throw unwritable(folder, error);
    }
  }

  get path(): string {
    return this.#path;
  }

  get socketPath(): string {
    return join(this.#path, LOCAL_API_SOCKET);
  }

  /** Undefined: a new folder. @throws STATE_UNREADABLE */
  read(): PeerState | undefined {
    return readState(this.#path);
  }

  /** On return it is on disk. @throws STATE_UNREADABLE when the folder can't be written to */
  write(state: PeerState): void {
    const path = join(this.#path, STATE_FILE);
    const fresh = join(this.#path, `${STATE_FILE}.${pid}.new`);
    try {
      rmSync(fresh, { force: true }); // of a run that was killed in the middle of this
      writeDurably(fresh, `${JSON.stringify(peerStateSchema.parse(state))}\n`);
      renameSync(fresh, path);
      fsyncPath(this.#path);
    } catch (error) {
      rmSync(fresh, { force: true }); // no half of it; what stands in its place is whole
      throw unwritable(path, error);
    }
  }

  /**
   * Once the coordinator has said whose token it was: the folder gets its identity's name. Taken by an earlier session
   * of that identity: its own session's name in addition. Call it before the socket is opened.
   */
  settle(coordinatorKey: Uint8Array, identity: string, session: string): void {
    const root = dirname(this.#path);
    if (!basename(this.#path).startsWith("joining-")) return;
    const name = stateFolderName(coordinatorKey, identity);
    for (const candidate of [name, `${name}-${session.slice(-6)}`]) {
      const to = join(root, candidate);
      if (existsSync(to)) continue;
      try {
        renameSync(this.#path, to);
        this.#path = to;
        fsyncPath(root);
      } catch (error) {
        throw unwritable(to, error);
      }
      return;
    }
  }

  release(): void {
    if (!this.#held) return;
    this.#held = false;
    try {
      rmSync(join(this.#path, LOCK_FILE), { force: true });
    } catch (error) {
      if (errnoOf(error) === "UNKNOWN") throw error; // else it stays behind: the next start sees that nobody holds it
    }
  }
}
