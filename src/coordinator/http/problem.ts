// RFC 9457 problem documents from the error catalogue. What is no WirebadgeError is our own fault: logged, and told to
// nobody.
import type { Context } from "hono";
import { ERROR_CODES, type ErrorCode, WirebadgeError } from "../../base/errors.ts";
import type { Logger } from "../options.ts";
import type { Diagnostic, Problem } from "./schema.ts";

/** A refused policy: the catalogue's code, and each finding with its place. */
export class PolicyRefusal extends WirebadgeError {
  readonly diagnostics: readonly Diagnostic[];

  constructor(code: ErrorCode, message: string, hint: string, diagnostics: readonly Diagnostic[]) {
    super(code, message, { hint });
    this.diagnostics = diagnostics;
  }
}

export function problemOf(error: unknown, logger: Logger): Problem {
  const known =
    error instanceof WirebadgeError
      ? error
      : new WirebadgeError("STORE_FAILED", "the coordinator failed to do this", { hint: "see the coordinator's log" });
  if (known !== error || known.code === "STORE_FAILED") logger.error({ err: error }, "an admin request failed");
  return {
    type: `urn:wirebadge:error:${known.code}`,
    title: known.code,
    status: ERROR_CODES[known.code][1],
    code: known.code,
    detail: known.message,
    ...(known.hint !== undefined && { hint: known.hint }),
    ...(known instanceof PolicyRefusal && { diagnostics: [...known.diagnostics] }),
  };
}

export function answerProblem(context: Context, error: unknown, logger: Logger): Response {
  const problem = problemOf(error, logger);
  return context.body(JSON.stringify(problem), problem.status as 400, {
    "content-type": "application/problem+json",
    "cache-control": "no-store",
  });
}
