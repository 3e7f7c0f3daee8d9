// Failed operations (configuration, FFI, HTTP, store): one catalogue of stable codes, each with its exit code and HTTP
// status. Bad bytes from the network are never errors of this kind: they are values with a drop reason and a counter.

export const ERROR_CODES = {
  // code: [exit code of the CLI, HTTP status]
  USAGE: [2, 400],
  CONFIG_INVALID: [2, 400],
  POLICY_INVALID: [2, 422],
  POLICY_TESTS_FAILED: [2, 422],
  POLICY_CONFLICT: [2, 409],
  TOKEN_INVALID: [2, 401],
  TOKEN_SPENT: [2, 403],
  TOKEN_EXPIRED: [2, 403],
  TOKEN_REVOKED: [2, 403],
  TOKEN_OTHER_NETWORK: [2, 403],
  IDENTITY_MISMATCH: [2, 403],
  SESSION_REVOKED: [2, 403],
  UNAUTHORIZED: [2, 401],
  FORBIDDEN: [2, 403],
  NOT_FOUND: [2, 404],
  METHOD_NOT_ALLOWED: [2, 405],
  CONFLICT: [2, 409],
  TOO_LARGE: [2, 413],
  PROTOCOL_VERSION: [2, 426],
  COORDINATOR_UNREACHABLE: [2, 502],
  COORDINATOR_UNTRUSTED: [2, 502],
  PEER_NOT_RUNNING: [2, 503],
  PEER_AMBIGUOUS: [2, 409],
  PORT_TAKEN: [2, 409],
  STATE_UNREADABLE: [2, 500],
  STATE_LOCKED: [2, 409],
  STORE_FAILED: [2, 500],
  NATIVE_UNAVAILABLE: [2, 501],
  INTERNAL: [2, 500],
  NO_GRANT: [1, 403],
  NEVER: [1, 403],
  UNREACHABLE: [1, 504],
  TIMEOUT: [1, 504],
} as const satisfies Record<string, readonly [exitCode: number, httpStatus: number]>;

export type ErrorCode = keyof typeof ERROR_CODES;

export interface ErrorDetails {
  /** How to mend it, in one sentence. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/**
 * `throw new WirebadgeError("PORT_TAKEN", "UDP port 51820 is in use", { hint: "choose another with --listen-port" })`
 */
export class WirebadgeError extends Error {
  override readonly name = "WirebadgeError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.hint = details.hint;
  }

  get exitCode(): number {
    return ERROR_CODES[this.code][0];
  }

  get httpStatus(): number {
    return ERROR_CODES[this.code][1];
  }
}
