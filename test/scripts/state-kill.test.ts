// The state folder under kill -9 and under starters that race, with processes of their own.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { StateFolder } from "../../src/peer/state.ts";
import type { PeerState } from "../../src/peer/state-schema.ts";

const KEY = `${"B".repeat(42)}A=`;

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "wb-state-"));
});
afterEach(() => rmSync(root, { recursive: true }));

function state(): PeerState {
  return { version: 1, coordinator: { url: "http://127.0.0.1:7171", key: KEY }, wireguardKey: KEY, signSeed: KEY };
}

const MODULE = JSON.stringify(new URL("../../src/peer/state.ts", import.meta.url).href);

function holder(path: string) {
  const program = `const { StateFolder } = await import(${MODULE}); StateFolder.open(${JSON.stringify(path)});
    console.log("held"); setInterval(() => undefined, 1000);`;
  return spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "pipe", "inherit"] });
}

test("the lock of a process that was killed is taken over, that of a living one isn't", async () => {
  const path = join(root, "x");
  const child = holder(path);
  await once(child.stdout, "data");
  expect(() => StateFolder.open(path)).toThrow(String(child.pid));
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(existsSync(join(path, "peer.pid"))).toBe(true);
  StateFolder.open(path).release();
});

test("of many that start at once over a stale lock, one gets it", async () => {
  const path = join(root, "x");
  mkdirSync(path, { mode: 0o700 });
  writeFileSync(join(path, "peer.pid"), "999999999 1\n");
  const program = `const { StateFolder } = await import(${MODULE});
    try { StateFolder.open(${JSON.stringify(path)}); process.stdout.write("held"); }
    catch (e) { process.stdout.write(e.code); }
    process.stdin.resume();`;
  const children = Array.from({ length: 4 }, () =>
    spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["pipe", "pipe", "inherit"] }),
  );
  const words = await Promise.all(children.map(async (child) => String((await once(child.stdout, "data"))[0])));
  for (const child of children) child.stdin.end();
  await Promise.all(children.map((child) => once(child, "exit")));
  expect(words.sort()).toEqual(["STATE_LOCKED", "STATE_LOCKED", "STATE_LOCKED", "held"]);
});

test("kill -9 in the middle of writing leaves a whole state", async () => {
  const path = join(root, "x");
  const program = `const { StateFolder } = await import(${MODULE}); const f = StateFolder.open(${JSON.stringify(path)});
    const s = ${JSON.stringify(state())}; process.stdout.write("go");
    for (let i = 0; ; i++) f.write({ ...s, listenPort: i % 65536, identity: "agent:" + "y".repeat(300) });`;
  for (let i = 0; i < 5; i++) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout, "data");
    await new Promise((resolve) => setTimeout(resolve, 20 + 7 * i));
    child.kill("SIGKILL");
    await once(child, "exit");
    const folder = StateFolder.open(path);
    const read = folder.read();
    if (read !== undefined) expect(read.identity).toHaveLength(306);
    folder.write(state());
    expect(readdirSync(path).filter((name) => name.startsWith("state.json.")).length).toBeLessThanOrEqual(1);
    folder.release();
    rmSync(path, { recursive: true });
  }
});
