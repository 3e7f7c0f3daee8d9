// One process of a test: started, listened to line by line, ended. What of them still runs when the test's process
// exits is killed then.
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import type { Namespace } from "../namespaces.ts";

/** Generous: the machine may be busy. A step that needs a bound of its own asserts it itself. */
export const PATIENCE_MS = 60_000;
const END_WAIT_MS = 10_000;
const TAIL_LINES = 40;

export interface ProgramOptions {
  readonly namespace?: Namespace | undefined;
  readonly stdin?: string | undefined;
  readonly env?: NodeJS.ProcessEnv | undefined;
  readonly uid?: number | undefined;
  readonly cwd?: string | undefined;
}

const running = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** The environment without what may be set for a Wirebadge of our own. */
export function cleanEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^(WIREBADGE_|VITEST|npm_)/.test(name));
  return Object.fromEntries(kept);
}

export class Program {
  readonly name: string;
  readonly child: ChildProcess;
  readonly exited: Promise<number | NodeJS.Signals | null>;
  /** Standard output and error, each line as it came. */
  readonly lines: string[] = [];
  readonly stdoutLines: string[] = [];
  readonly stderrLines: string[] = [];
  alive = true;

  /** Standard input stays open unless `stdin` is given. */
  constructor(name: string, command: string, args: readonly string[], options: ProgramOptions = {}) {
    this.name = name;
    const { namespace, stdin, uid, cwd } = options;
    const how = {
      stdio: "pipe" as const,
      env: options.env ?? cleanEnvironment(),
      ...(uid === undefined ? {} : { uid, gid: uid }),
      ...(cwd === undefined ? {} : { cwd }),
    };
    this.child = namespace === undefined ? spawn(command, args, how) : namespace.spawn(command, args, how);
    running.add(this.child);
    this.exited = new Promise((resolve) => {
      this.child.once("error", (error) => {
        this.lines.push(error.message);
        resolve(null);
      });
      this.child.once("close", (code, signal) => resolve(code ?? signal));
    });
    void this.exited.then(() => {
      this.alive = false;
      running.delete(this.child);
    });
    for (const [stream, kept] of [
      [this.child.stdout, this.stdoutLines],
      [this.child.stderr, this.stderrLines],
    ] as const) {
      if (stream === null) continue;
      createInterface({ input: stream }).on("line", (line) => {
        kept.push(line);
        this.lines.push(line);
      });
    }
    this.child.stdin?.on("error", () => undefined); // it ended without reading: its exit code says why
    if (stdin !== undefined) this.child.stdin?.end(stdin);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  get output(): string {
    return this.lines.join("\n");
  }

  /** The JSON lines so far. */
  get records(): Record<string, unknown>[] {
    return this.lines.map(parseRecord).filter((record) => record !== undefined);
  }

  /** The first JSON line, past or to come, that `read` makes something of. */
  async event<T>(what: string, read: (value: Record<string, unknown>) => T | undefined): Promise<T> {
    return await until(`${what} of ${this.name}`, () => {
      for (const record of this.records) {
        const found = read(record);
        if (found !== undefined) return found;
      }
      if (!this.alive) throw new Error(`${this.name} ended before ${what}:\n${this.tail}`);
      return undefined;
    });
  }

  get tail(): string {
    return this.lines.slice(-TAIL_LINES).join("\n");
  }

  /** kill -9: it gets no chance to tidy up. */
  async kill(): Promise<void> {
    this.child.kill("SIGKILL");
    await this.exited;
  }

  /** SIGTERM, and SIGKILL when that has no effect. */
  async end(): Promise<number | NodeJS.Signals | null> {
    this.child.kill("SIGTERM");
    const late = setTimeout(() => this.child.kill("SIGKILL"), END_WAIT_MS);
    const how = await this.exited;
    clearTimeout(late);
    return how;
  }
}

function parseRecord(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith("{")) return undefined;
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined; // not JSON after all
  }
}

/** Asks again and again until there is an answer; fails with `what` after PATIENCE_MS, or with what `ask` throws. */
export async function until<T>(
  what: string,
  ask: () => T | undefined | Promise<T | undefined>,
  patienceMs = PATIENCE_MS,
): Promise<NonNullable<T>> {
  const endMs = performance.now() + patienceMs;
  for (;;) {
    const found = await ask();
    if (found !== undefined && found !== null && found !== false) return found as NonNullable<T>;
    if (performance.now() > endMs) throw new Error(`no ${what} within ${patienceMs} ms`);
    await delay(20);
  }
}
