// A disk of one megabyte, in a mount namespace of its own: it can be filled, emptied and made read-only, and is gone
// with the process that holds the namespace. Needs root.

import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestNetwork } from "./network.ts";
import type { Program } from "./program.ts";

export class SmallDisk {
  /** For programs in the namespace. */
  readonly path: string;
  readonly #holder: Program;

  private constructor(path: string, holder: Program) {
    this.path = path;
    this.#holder = holder;
  }

  /** `mounts`: more lines of shell, run in the namespace first. */
  static async make(network: TestNetwork, mounts = ""): Promise<SmallDisk> {
    const path = join(network.folder, "disk");
    mkdirSync(path, { recursive: true });
    const mount = `mount -t tmpfs -o size=1m,mode=700 none ${path}`;
    const script = [mount, mounts || "true", `echo '{"mounted":true}'`, "read end"].join(" && ");
    const holder = network.start("disk", "unshare", ["-m", "--propagation", "private", "sh", "-c", script]);
    await holder.event("mount", (value) => value["mounted"]);
    return new SmallDisk(path, holder);
  }

  /** Seen from outside. */
  outside(path: string): string {
    return join("/proc", String(this.#holder.pid), "root", path);
  }

  /** The command's words, run inside. */
  inside(...words: readonly string[]): string[] {
    return ["nsenter", "-t", String(this.#holder.pid), "-m", ...words];
  }

  fill(): void {
    const file = this.outside(join(this.path, "fill"));
    try {
      for (let bytes = 65_536; bytes >= 1; bytes = Math.floor(bytes / 16)) this.#append(file, bytes);
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
    }
  }

  #append(file: string, bytes: number): void {
    for (let n = 0; n < 1_000; n++) {
      try {
        writeFileSync(file, Buffer.alloc(bytes), { flag: "a" });
      } catch {
        return; // no more of that size
      }
    }
  }

  empty(): void {
    rmSync(this.outside(join(this.path, "fill")), { force: true });
  }

  remount(how: "ro" | "rw"): void {
    const [command, ...words] = this.inside("mount", "-o", `remount,${how}`, this.path);
    const done = spawnSync(command!, words, { encoding: "utf8" });
    if (done.status !== 0) throw new Error(done.stderr);
  }
}
