// The quickstart's processes: started, listened to, and known to the guard that ends them on every path.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const TAIL_LINES_MAX = 40;

/** The CLI that users run. */
export const WIREBADGE = fileURLToPath(new URL("../../../bin/wirebadge", import.meta.url));

/** A program of this folder, beside this file: source or built. */
export function sibling(name: string): string {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return fileURLToPath(new URL(`./${name}.${extension}`, import.meta.url));
}

/** Nothing of what this process was given on the quiet goes on to others. */
function childEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => !name.startsWith("WIREBADGE_") && !name.startsWith("npm_"),
  );
  return { ...Object.fromEntries(kept), WIREBADGE_LOG: "warn" };
}

export class Child {
  readonly name: string;
  readonly process: ChildProcess;
  readonly exited: Promise<number | null>;
  /** True until it has ended. */
  alive = true;
  #lines: string[] = [];
  #tail: string[] = [];
  #waiting = new Set<(line: string) => void>();

  constructor(name: string, child: ChildProcess) {
    this.name = name;
    this.process = child;
    this.exited = new Promise<number | null>((resolve) => {
      child.once("error", (error) => {
        this.#tail.push(error.message);
        resolve(null);
      });
      child.once("close", resolve);
    }).then((code) => {
      this.alive = false;
      return code;
    });
    for (const stream of [child.stdout, child.stderr]) {
      if (stream === null) continue;
      createInterface({ input: stream }).on("line", (line) => this.#hear(line));
    }
  }

  #hear(line: string): void {
    this.#tail.push(line);
    if (this.#tail.length > TAIL_LINES_MAX) this.#tail.shift();
    this.#lines.push(line);
    if (this.#lines.length > 10 * TAIL_LINES_MAX) this.#lines.shift();
    for (const wake of this.#waiting) wake(line);
  }

  /** What it printed last, for the message of a failed step. */
  get tail(): string {
    return this.#tail.join("\n");
  }

  /**
   * The first JSON line, past or to come, that `read` makes something of. Rejects when the process ends or time is
   * up.
   */
  async event<T>(what: string, limitMs: number, read: (value: Record<string, unknown>) => T | undefined): Promise<T> {
    const parse = (line: string): T | undefined => {
      if (!line.startsWith("{")) return undefined;
      try {
        return read(JSON.parse(line) as Record<string, unknown>);
      } catch {
        return undefined; // not JSON after all
      }
    };
    for (const line of this.#lines) {
      const found = parse(line);
      if (found !== undefined) return found;
    }
    return new Promise<T>((resolve, reject) => {
      const finish = (act: () => void): void => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        act();
      };
      const wake = (line: string): void => {
        const found = parse(line);
        if (found !== undefined) finish(() => resolve(found));
      };
      const timer = setTimeout(
        () => finish(() => reject(new Error(`${this.name}: no ${what} within ${limitMs} ms\n${this.tail}`))),
        limitMs,
      );
      this.#waiting.add(wake);
      void this.exited.then((code) =>
        finish(() => reject(new Error(`${this.name} ended with exit code ${code} before ${what}\n${this.tail}`))),
      );
    });
  }
}

export interface CommandOutcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Monotonic clock of the machine, nanoseconds, just before the process was started. */
  readonly startedNs: bigint;
}

export interface StartOptions {
  readonly stdin?: string;
  /** Network namespace to run in. */
  readonly namespace?: string | undefined;
}

export class Processes {
  /** Everything is in here; the guard removes it. */
  readonly folder: string;
  readonly #guard: ChildProcess;
  readonly #guardEnded: Promise<void>;
  readonly #children: Child[] = [];

  constructor() {
    this.#guard = spawn(process.execPath, [sibling("guard")], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true, // Ctrl-C in a terminal reaches its whole foreground group; the guard has to outlive it
      env: childEnvironment(),
    });
    this.#guardEnded = new Promise((resolve) => this.#guard.once("close", () => resolve()));
    this.#guard.stdin?.on("error", () => undefined); // the guard died: nothing to tell it any more
    this.folder = mkdtempSync(join(tmpdir(), "wirebadge-quickstart-"));
    this.tellGuard("folder", this.folder);
  }

  tellGuard(verb: "started" | "ended" | "folder" | "namespace", what: string | number): void {
    this.#guard.stdin?.write(`${verb} ${what}\n`);
  }

  /** A long-running program of Node: `argv` as after `node`. Its standard input stays open unless `stdin` is given. */
  start(name: string, argv: readonly string[], { stdin, namespace }: StartOptions = {}): Child {
    const enter = namespace === undefined ? [] : ["ip", "netns", "exec", namespace];
    const [program = process.execPath, ...rest] = [...enter, process.execPath, ...argv];
    const child = spawn(program, rest, {
      stdio: ["pipe", "pipe", "pipe"],
      detached: true, // a group of its own: Ctrl-C is the quickstart's to handle
      env: childEnvironment(),
    });
    child.stdin.on("error", () => undefined); // it ended without reading: its exit code says why
    if (stdin !== undefined) child.stdin.end(stdin);
    const { pid } = child;
    if (pid !== undefined) {
      this.tellGuard("started", pid);
      child.once("close", () => this.tellGuard("ended", pid));
    }
    const started = new Child(name, child);
    this.#children.push(started);
    return started;
  }

  /** One command of the CLI, to its end. */
  async command(words: readonly string[], options: StartOptions = {}): Promise<CommandOutcome> {
    const enter = options.namespace === undefined ? [] : ["ip", "netns", "exec", options.namespace];
    const [program = process.execPath, ...rest] = [...enter, process.execPath, WIREBADGE, ...words];
    const startedNs = process.hrtime.bigint();
    const child = spawn(program, rest, { stdio: ["pipe", "pipe", "pipe"], env: childEnvironment() });
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      stdout += chunk;
    });
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      stderr += chunk;
    });
    child.stdin.on("error", () => undefined); // it ended without reading: its exit code says why
    child.stdin.end(options.stdin ?? "");
    if (child.pid !== undefined) this.tellGuard("started", child.pid);
    const code = await new Promise<number | null>((resolve) => {
      child.once("error", () => resolve(null));
      child.once("close", resolve);
    });
    if (child.pid !== undefined) this.tellGuard("ended", child.pid);
    return { code, stdout, stderr, startedNs };
  }

  /** A command with --json that has to succeed: its answer. */
  async ask(words: readonly string[], options: StartOptions = {}): Promise<Record<string, unknown>> {
    const outcome = await this.command([...words, "--json"], options);
    const answer = outcome.stdout.trim() === "" ? {} : (JSON.parse(outcome.stdout) as Record<string, unknown>);
    if (outcome.code === 0) return answer;
    throw new Error(
      `wirebadge ${words.join(" ")}: exit code ${outcome.code}: ${`${outcome.stdout}${outcome.stderr}`.trim()}`,
    );
  }

  /** What those said last that should still run, for the message of a failed step. */
  lastWords(): string {
    const ended = this.#children.filter((child) => !child.alive);
    return ended.map((child) => `\n${child.name} has ended (${child.process.exitCode}): ${child.tail}`).join("");
  }

  /** Ends every process, removes every trace. */
  async cleanUp(): Promise<void> {
    this.#guard.stdin?.end();
    await this.#guardEnded;
  }
}
