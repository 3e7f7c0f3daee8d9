// The process that cleans up after the quickstart, however that ended: it is told over its standard input what there is
// to end and to remove, and does it when that input closes, be it by Ctrl-C, an error or kill -9.
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";

const CLEAN_END_MS = 2_000;

const processes = new Set<number>();
const folders = new Set<string>();
const namespaces = new Set<string>();

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false; // gone
  }
}

function signal(name: NodeJS.Signals): void {
  for (const pid of processes) {
    try {
      process.kill(pid, name);
    } catch {
      processes.delete(pid); // gone already
    }
  }
}

async function waitForEnd(limitMs: number): Promise<void> {
  for (const end = performance.now() + limitMs; processes.size > 0 && performance.now() < end; ) {
    for (const pid of processes) if (!isAlive(pid)) processes.delete(pid);
    if (processes.size > 0) await delay(10);
  }
}

for (const ignored of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(ignored, () => undefined);

for await (const line of createInterface({ input: process.stdin })) {
  const [verb, what = ""] = line.split(" ", 2);
  if (verb === "started") processes.add(Number(what));
  else if (verb === "ended") processes.delete(Number(what));
  else if (verb === "folder") folders.add(what);
  else if (verb === "namespace") namespaces.add(what);
}
signal("SIGTERM");
await waitForEnd(CLEAN_END_MS);
signal("SIGKILL");
await waitForEnd(500);
for (const namespace of namespaces) {
  try {
    execFileSync("ip", ["netns", "del", namespace], { stdio: "ignore" });
  } catch {
    process.exitCode = 1; // never made, or held by somebody else
  }
}
for (const folder of folders) rmSync(folder, { recursive: true, force: true });
