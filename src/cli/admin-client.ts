// The admin API over fetch, checked against the coordinator's own schemas.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { z } from "zod";
import { ERROR_CODES, type ErrorCode, WirebadgeError } from "../base/errors.ts";
import { type Diagnostic, problemSchema } from "../coordinator/http/schema.ts";
import { isLoopback } from "./command.ts";
import { ADMIN_TOKEN_FILE } from "./folders.ts";

const ANSWER_WITHIN_MS = 15_000;

/** A refusal by the coordinator, with what is wrong where in a policy document. */
export class AdminApiError extends WirebadgeError {
  readonly diagnostics: readonly Diagnostic[];

  constructor(code: ErrorCode, message: string, hint: string | undefined, diagnostics: readonly Diagnostic[]) {
    super(code, message, hint === undefined ? {} : { hint });
    this.diagnostics = diagnostics;
  }
}

/** From WIREBADGE_ADMIN_TOKEN (taken out of the environment), else from the data folder's token file. */
export async function readAdminToken(env: NodeJS.ProcessEnv, dataFolder: string): Promise<string> {
  const fromEnvironment = env["WIREBADGE_ADMIN_TOKEN"]?.trim();
  delete env["WIREBADGE_ADMIN_TOKEN"];
  if (fromEnvironment !== undefined && fromEnvironment !== "") return fromEnvironment;
  const path = join(dataFolder, ADMIN_TOKEN_FILE);
  try {
    return (await readFile(path, "utf8")).trim();
  } catch (error) {
    throw new WirebadgeError("UNAUTHORIZED", `no admin token: ${path} can't be read`, {
      cause: error,
      hint: "give the coordinator's data folder by --data DIR, or the token itself by WIREBADGE_ADMIN_TOKEN",
    });
  }
}

export interface AdminClientOptions {
  readonly url: string;
  readonly token: string;
}

/** Throws USAGE when the token would cross a network in clear text. */
export function refuseClearText(url: string): void {
  const { protocol, hostname } = new URL(url);
  if (protocol === "https:" || isLoopback(hostname)) return;
  throw new WirebadgeError("USAGE", `${url} would carry the admin token over the network in clear text`, {
    hint: "use https://, or an SSH tunnel to the coordinator's loopback address",
  });
}

export class AdminClient {
  readonly #url: string;
  readonly #token: string;

  constructor({ url, token }: AdminClientOptions) {
    refuseClearText(url);
    this.#url = url;
    this.#token = token;
  }

  /** One call; `path` with its query, as in `/v1/tokens`. Throws an AdminApiError for what the coordinator refused. */
  async call<S extends z.ZodType>(method: string, path: string, answer: S, body?: unknown): Promise<z.output<S>> {
    const response = await this.#send(method, path, body);
    const text = await response.text().catch((error: unknown) => this.#unreachable(error));
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      value = undefined;
    }
    if (!response.ok) throw this.#refusal(response.status, value);
    const parsed = answer.safeParse(value);
    if (parsed.success) return parsed.data;
    throw new WirebadgeError(
      "PROTOCOL_VERSION",
      `${method} ${path} was answered in a form that this version can't read`,
      {
        hint: `is ${this.#url} the admin listener of a coordinator of the same version?`,
        cause: parsed.error,
      },
    );
  }

  async #send(method: string, path: string, body: unknown): Promise<Response> {
    try {
      return await fetch(this.#url + path, {
        method,
        headers: {
          authorization: `Bearer ${this.#token}`,
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        redirect: "error", // the token goes to the host that was named and to no other
        signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
      });
    } catch (error) {
      return this.#unreachable(error);
    }
  }

  #unreachable(error: unknown): never {
    if (error instanceof Error && error.name === "TimeoutError")
      throw new WirebadgeError("TIMEOUT", `${this.#url} did not answer within ${ANSWER_WITHIN_MS / 1000} s`, {
        cause: error,
      });
    const cause = error instanceof Error ? (error.cause ?? error) : error;
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new WirebadgeError("COORDINATOR_UNREACHABLE", `no coordinator answers at ${this.#url} (${code ?? message})`, {
      cause: error,
      hint: "is `wirebadge coordinator` running there? --url names its admin listener",
    });
  }

  #refusal(status: number, value: unknown): WirebadgeError {
    const problem = problemSchema.safeParse(value);
    if (!problem.success)
      return new WirebadgeError("PROTOCOL_VERSION", `${this.#url} answered with HTTP status ${status}`, {
        hint: "--url must name a coordinator's admin listener, not its control channel",
      });
    const { code, detail, hint, diagnostics } = problem.data;
    return new AdminApiError(isErrorCode(code) ? code : "STORE_FAILED", detail, hint, diagnostics ?? []);
  }
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_CODES, code);
}
