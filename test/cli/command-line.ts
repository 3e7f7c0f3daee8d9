// Runs the command line in this process, with streams in memory and a runtime that records what it was asked.
import { EventEmitter } from "node:events";
import { PassThrough } from "node:stream";
import { runCli } from "../../src/cli/cli.ts";
import type { Runtime } from "../../src/cli/runtime.ts";

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Call {
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
  readonly url: string;
  readonly token: string;
}

export class FakeSignals extends EventEmitter {
  exitedWith: number | undefined;

  exit(code: number): never {
    this.exitedWith = code;
    throw new Error(`exit ${code}`);
  }
}

export interface FakeRuntime extends Runtime {
  readonly calls: Call[];
  readonly signals: FakeSignals;
}

/** Admin answers by `METHOD path` (query cut off); a function may throw. Everything else throws when it is reached. */
export function fakeRuntime(
  answers: Readonly<Record<string, unknown>> = {},
  more: Partial<Omit<Runtime, "signals" | "adminClient">> = {},
): FakeRuntime {
  const calls: Call[] = [];
  const unexpected = (name: string) => async (): Promise<never> => {
    throw new Error(`${name} was not expected`);
  };
  return {
    calls,
    signals: new FakeSignals(),
    adminClient: ({ url, token }) => ({
      call: async (method, path, schema, body) => {
        calls.push({ method, path, body, url, token });
        const answer = answers[`${method} ${path.replace(/\?.*/, "")}`];
        return schema.parse(typeof answer === "function" ? answer() : answer);
      },
    }),
    startCoordinator: unexpected("startCoordinator"),
    startPeer: unexpected("startPeer"),
    startWgMode: unexpected("startWgMode"),
    localApi: unexpected("localApi"),
    ...more,
  };
}

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly stdin?: string;
  readonly runtime?: Runtime;
  readonly nowMs?: number;
}

export function memoryStream(): { stream: PassThrough; text: () => string } {
  const stream = new PassThrough();
  let text = "";
  stream.on("data", (chunk: Buffer) => {
    text += chunk.toString("utf8");
  });
  return { stream, text: () => text };
}

export async function run(words: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const stdout = memoryStream();
  const stderr = memoryStream();
  const code = await runCli(
    words,
    {
      stdout: stdout.stream,
      stderr: stderr.stream,
      stdin: (async function* () {
        yield options.stdin ?? "";
      })(),
      env: options.env ?? {},
      nowMs: () => options.nowMs ?? 1_700_000_000_000,
    },
    options.runtime ?? fakeRuntime(),
  );
  return { code, stdout: stdout.text(), stderr: stderr.text() };
}

/** The last line of standard output as JSON. */
export function lastJson(outcome: Outcome): unknown {
  return JSON.parse(outcome.stdout.trim().split("\n").at(-1) ?? "");
}
