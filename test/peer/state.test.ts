import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { WirebadgeError } from "../../src/base/errors.ts";
import { defaultStateRoot, findStateFolder, listStateFolders, readState, StateFolder } from "../../src/peer/state.ts";
import type { PeerState } from "../../src/peer/state-schema.ts";
import { needs } from "../needs.ts";

const KEY = `${"B".repeat(42)}A=`;
const CANARY = "CANARYcanaryCANARYcanaryCANARYcanaryCANARYc=";
const COORDINATOR = new Uint8Array(32).fill(0x3f);
const SESSION = "s_0123456789abcdef";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "wb-state-"));
});
afterEach(() => rmSync(root, { recursive: true }));

function state(change: Partial<PeerState> = {}): PeerState {
  return {
    version: 1,
    coordinator: { url: "http://127.0.0.1:7171", key: KEY },
    tokenId: "t_0123456789abcdef",
    wireguardKey: CANARY,
    signSeed: CANARY,
    ...change,
  };
}

function failure(work: () => unknown): WirebadgeError {
  try {
    work();
  } catch (error) {
    if (error instanceof WirebadgeError) return error;
    throw error;
  }
  throw new Error("it worked");
}

test("what was written is read again, in a folder and a file that are the owner's alone", () => {
  const folder = StateFolder.open(join(root, "a", "b"));
  expect(folder.read()).toBeUndefined();
  const written = state({
    session: SESSION,
    lastTimestamp: "400000006789abcd01234567",
  });
  folder.write(written);
  expect(folder.read()).toEqual(written);
  expect(statSync(folder.path).mode & 0o777).toBe(0o700);
  expect(statSync(join(folder.path, "state.json")).mode & 0o777).toBe(0o600);
  expect(readdirSync(folder.path).sort()).toEqual(["peer.pid", "state.json"]);
  folder.release();
  expect(readdirSync(folder.path)).toEqual(["state.json"]);
});

test.each([
  ["{", "JSON"],
  ["", "JSON"],
  [`{"wireguardKey": "${CANARY}", "signSeed": "${CANARY}" oops`, "JSON"],
  [JSON.stringify({ ...state(), wireguardKey: CANARY.slice(1) }), "wireguardKey"],
  [JSON.stringify({ ...state(), signSeed: [CANARY] }), "signSeed"],
  [JSON.stringify({ ...state(), session: CANARY }), "session"],
  [JSON.stringify({ ...state(), surplus: CANARY }), "damaged"],
  [JSON.stringify({ ...state(), version: 2 }), "newer"],
  ["null", "damaged"],
])("a damaged file is refused with a hint, never overwritten, its keys never quoted (%#)", (text, what) => {
  const folder = StateFolder.open(join(root, "x"));
  const path = join(folder.path, "state.json");
  writeFileSync(path, text, { mode: 0o600 });
  const error = failure(() => folder.read());
  expect(error.code).toBe("STATE_UNREADABLE");
  expect(error.message).toContain(what);
  expect(error.hint).toBeTruthy();
  expect(`${error.message}${error.hint}${String(error.cause)}${error.stack}`).not.toContain("CANARY");
  expect(readFileSync(path, "utf8")).toBe(text);
  folder.release();
});

test("a file or a filled folder that is open to others is refused; an empty folder is closed", () => {
  const loose = join(root, "loose");
  mkdirSync(loose, { mode: 0o755 });
  const folder = StateFolder.open(loose);
  expect(statSync(loose).mode & 0o777).toBe(0o700);
  folder.write(state());
  chmodSync(join(loose, "state.json"), 0o640);
  expect(failure(() => folder.read())).toMatchObject({
    code: "STATE_UNREADABLE",
    hint: expect.stringContaining("chmod"),
  });
  folder.release();
  const strange = join(root, "strange");
  mkdirSync(strange, { mode: 0o755 });
  writeFileSync(join(strange, "photo.jpg"), "");
  expect(failure(() => StateFolder.open(strange)).code).toBe("STATE_UNREADABLE");
  expect(statSync(strange).mode & 0o777).toBe(0o755);
});

test("a state that does not fit the schema is not written, and the old one stays", () => {
  const folder = StateFolder.open(join(root, "x"));
  folder.write(state());
  const error = failure(() => folder.write({ ...state(), wireguardKey: `${CANARY}!` }));
  expect(`${error.message}${error.hint}${String(error.cause)}`).not.toContain("CANARY");
  expect(folder.read()).toEqual(state());
  folder.release();
});

test("one process at a time: a second one is refused with the first one's pid, and let in after it has left", () => {
  const first = StateFolder.open(join(root, "x"));
  const error = failure(() => StateFolder.open(join(root, "x")));
  expect(error.code).toBe("STATE_LOCKED");
  expect(error.message).toContain(String(process.pid));
  first.release();
  StateFolder.open(join(root, "x")).release();
});

test("a lock whose pid another process has got since is stale, and so is one that makes no sense", () => {
  const path = join(root, "x");
  mkdirSync(path, { mode: 0o700 });
  for (const lock of [`${process.pid} 12345\n`, "", "nonsense", "-1 1\n"]) {
    writeFileSync(join(path, "peer.pid"), lock);
    StateFolder.open(path).release();
    expect(readdirSync(path)).toEqual([]);
  }
});

test("the root follows XDG_STATE_HOME", () => {
  expect(defaultStateRoot({ XDG_STATE_HOME: "/s" })).toBe("/s/wirebadge");
  expect(defaultStateRoot({})).toMatch(/\/\.local\/state\/wirebadge$/);
});

test("the same token finds its state again, under its identity's name; another token gets its own", () => {
  const first = findStateFolder(root, COORDINATOR, "t_one");
  expect(first).toBe(join(root, "joining-t_one@3f3f3f3f"));
  const folder = StateFolder.open(first);
  folder.write(state({ tokenId: "t_one" }));
  folder.settle(COORDINATOR, "agent:coder", SESSION);
  expect(folder.path).toBe(join(root, "agent-coder@3f3f3f3f"));
  expect(folder.read()?.tokenId).toBe("t_one");
  expect(findStateFolder(root, COORDINATOR, "t_one")).toBe(folder.path);
  const second = StateFolder.open(findStateFolder(root, COORDINATOR, "t_two"));
  second.write(state({ tokenId: "t_two" }));
  second.settle(COORDINATOR, "agent:coder", SESSION);
  expect(second.path).toBe(join(root, "agent-coder@3f3f3f3f-abcdef"));
  expect(findStateFolder(root, new Uint8Array(32).fill(1), "t_one")).toBe(join(root, "joining-t_one@01010101"));
  writeFileSync(join(folder.path, "state.json"), "{");
  expect(findStateFolder(root, COORDINATOR, "t_two")).toBe(second.path);
  expect(listStateFolders(root)).toHaveLength(2);
  folder.release();
  second.release();
});

test("an identity can't lead out of the root", () => {
  const folder = StateFolder.open(findStateFolder(root, COORDINATOR, "t_one"));
  folder.settle(COORDINATOR, "user:../../../etc/x@y", SESSION);
  expect(folder.path.startsWith(`${root}/`)).toBe(true);
  expect(folder.path.slice(root.length + 1)).not.toContain("/");
  folder.release();
});

test.runIf(needs("root"))("another user's state is refused", () => {
  const folder = StateFolder.open(join(root, "x"));
  folder.write(state());
  folder.release();
  execFileSync("chown", ["-R", "65534", join(root, "x")]);
  expect(failure(() => readState(join(root, "x"))).message).toContain("another user");
  expect(failure(() => StateFolder.open(join(root, "x"))).code).toBe("STATE_UNREADABLE");
});
