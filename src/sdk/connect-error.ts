// Why a connection could not be had, as a net.Socket's error with what a denial adds: its id, reason and rule, and what
// would allow it. For what a caller may neither reach nor ask for it has the same words as for what doesn't exist.
import { parseAddress } from "../base/address.ts";
import { printable } from "../base/printable.ts";
import type { DialError, DialFailure, DialTarget } from "../peer/overlay.ts";
import { SocketError } from "../peer/socket-error.ts";

const WHAT: Readonly<Record<DialFailure, string>> = {
  denied: "denied",
  refused: "the far end refused the connection",
  unreachable: "the far end can't be reached",
  unresolved: "its gateway finds no such name",
  timeout: "no answer in time",
  aborted: "given up",
};

/**
 * `code`: EACCES (denied), ECONNREFUSED, EHOSTUNREACH, ENOTFOUND, ETIMEDOUT.
 * @example
 * socket.on("error", (error) => {
 *   if (error instanceof ConnectError && error.denialId) console.error(error.denialId, error.hint);
 * });
 */
export class ConnectError extends SocketError {
  override readonly name = "ConnectError";
  /** As asked for: a name or an address. */
  readonly host: string;
  /** Of the policy, when one denied it. */
  readonly rule: string | undefined;
  /** `d_…`: of the record in `denials` and with the administrator. */
  readonly denialId: string | undefined;
  /** "NO_GRANT", "NEVER", "DIAL_REFUSED" … */
  readonly reason: string | undefined;
  /** What would allow it, or mend it. */
  readonly hint: string | undefined;

  constructor(error: DialError, target: DialTarget, identity: string, protocol: "tcp" | "udp" = "tcp") {
    const { code, kind, denialId, reason, ruleId } = error;
    const hint = error.hint ?? (kind === "denied" ? hintFor(reason, target, identity, protocol) : undefined);
    const place = `${printable(target.host.includes(":") && isAddress(target) ? `[${target.host}]` : target.host)}`;
    const words = [WHAT[kind], reason, ruleId === undefined ? undefined : `by rule ${ruleId}`, inBrackets(denialId)];
    const text = words.filter((word) => word !== undefined).join(" ");
    const syscall = protocol === "tcp" ? "connect" : "send";
    const message = `${syscall} ${code} ${place}:${target.port}: ${text}${hint === undefined ? "" : `; ${hint}`}`;
    super(code, message, syscall, { address: target.host, port: target.port }, error);
    this.host = target.host;
    this.rule = ruleId;
    this.denialId = denialId;
    this.reason = reason;
    this.hint = hint;
  }
}

function inBrackets(text: string | undefined): string | undefined {
  return text === undefined ? undefined : `(${text})`;
}

function isAddress({ host }: DialTarget): boolean {
  return parseAddress(host) !== undefined;
}

/** In the policy's own words; nothing that the asker did not say itself. */
function hintFor(reason: string | undefined, target: DialTarget, identity: string, protocol: string): string {
  if (reason === "NEVER") return "a `never` of the policy closes it, and no grant goes around that";
  if (reason === "DIAL_REFUSED") return "the gateway's dial rules close it, whatever the policy grants";
  if (reason === "SESSION_REVOKED") return "join anew with another token";
  if (reason === "LEASE_ENDED" || reason === "NO_LEASE") return "see that the coordinator can be reached";
  const { host, port } = target;
  const traffic = `${protocol}:${port}`;
  if (isAddress(target)) return `an admin can grant ${grant(identity, `${host} ${traffic}`)}`;
  const name = printable(host);
  const to = name.includes(":")
    ? name.startsWith("service:")
      ? name
      : `${name} ${traffic}`
    : name.includes(".")
      ? `host:${name} ${traffic}`
      : `service:${name}`;
  return `if there is such a place, an admin can grant ${grant(identity, to)}`;
}

function grant(from: string, to: string): string {
  return `{ "from": "${from}", "to": "${to}" }`;
}
