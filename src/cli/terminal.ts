// What a command may print: results on standard output (text, or one JSON object a line with --json), notes on
// standard error. A reader that went away (EPIPE) is never an error: `wirebadge status | head -1` ends quietly, `up`
// goes on working.
import type { Writable } from "node:stream";
import { ERROR_CODES, WirebadgeError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { hideSecrets } from "./secrets.ts";

/** The part of a process that commands use; tests give their own. */
export interface Surroundings {
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable & { readonly isTTY?: boolean };
  readonly stdin: AsyncIterable<Uint8Array | string> & { readonly isTTY?: boolean };
  readonly env: NodeJS.ProcessEnv;
  readonly nowMs: () => number;
}

/** What `--json` prints of a failure, and what the text form is made from. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
}

export class Terminal {
  readonly surroundings: Surroundings;
  /**
   * Set from the command line before the command runs, so that errors of the command line itself keep the form asked
   * for.
   */
  json = false;

  constructor(surroundings: Surroundings) {
    this.surroundings = surroundings;
    for (const stream of [surroundings.stdout, surroundings.stderr]) {
      stream.on("error", (error: NodeJS.ErrnoException) => {
        if (error.code !== "EPIPE" && error.code !== "ERR_STREAM_DESTROYED") throw error;
      });
    }
  }

  /** One result: the object with --json, else the text that `format` makes of it. */
  result<T>(value: T, format: (value: T) => string): void {
    const text = this.json ? JSON.stringify(value) : format(value);
    if (text !== "") this.surroundings.stdout.write(`${text}\n`);
  }

  /** One readable line on standard error. */
  note(line: string): void {
    this.surroundings.stderr.write(`${line}\n`);
  }

  /** Prints the failure and returns the exit code that goes with it. */
  failure(error: unknown): number {
    const { failure, exitCode } = describeFailure(error);
    if (this.json) this.surroundings.stdout.write(`${JSON.stringify({ error: failure })}\n`);
    else this.note(formatFailure(failure));
    return exitCode;
  }

  /** Resolves when all that was written has left, or can't any more. */
  async flush(): Promise<void> {
    const drained = (stream: Writable): Promise<void> =>
      new Promise((resolve) => {
        if (stream.destroyed || stream.writableEnded) resolve();
        else stream.write("", () => resolve());
      });
    await Promise.all([drained(this.surroundings.stdout), drained(this.surroundings.stderr)]);
  }
}

/** `error CODE: message`, and the hint on a line of its own. */
export function formatFailure(failure: Failure): string {
  const lines = [`error ${failure.code}: ${printable(failure.message)}`];
  if (failure.hint !== undefined) lines.push(`hint: ${printable(failure.hint)}`);
  return lines.join("\n");
}

export function describeFailure(error: unknown): { failure: Failure; exitCode: number } {
  if (error instanceof WirebadgeError) {
    const failure: Failure = { code: error.code, message: hideSecrets(error.message) };
    return {
      failure: error.hint === undefined ? failure : { ...failure, hint: hideSecrets(error.hint) },
      exitCode: error.exitCode,
    };
  }
  const message = error instanceof Error ? error.message : String(error);
  const lines = error instanceof Error ? (error.stack ?? "").split("\n") : [];
  const at = lines.find((line) => line.includes(" at "))?.trim();
  return {
    failure: {
      code: "INTERNAL",
      message: hideSecrets(`${message}${at === undefined ? "" : ` (${at})`}`),
      hint: "this is a bug of Wirebadge, not of what you typed: please report it with this line",
    },
    exitCode: ERROR_CODES.INTERNAL[0],
  };
}
