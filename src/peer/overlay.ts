// What every local entry point (SOCKS5, forwards, SDK) dials through, and what the dialer itself needs of the engine.
import { type Address, type Endpoint, parseAddress } from "../base/address.ts";
import type { NetmapView } from "../control/netmap.ts";
import type { FilterProtocol, Verdict, VerdictReason } from "../filter/contract.ts";
import type { UdpSocket } from "../netstack/contract.ts";
import type { HeldTcp, OverlaySocket } from "./overlay-socket.ts";

export type DialFailure = "denied" | "refused" | "unreachable" | "unresolved" | "timeout" | "aborted";

const FAILURE_CODES: Readonly<Record<DialFailure, string>> = {
  denied: "EACCES",
  refused: "ECONNREFUSED",
  unreachable: "EHOSTUNREACH",
  unresolved: "ENOTFOUND",
  timeout: "ETIMEDOUT",
  aborted: "ABORT_ERR",
};

/**
 * What explains a denial to whom it concerns. A name that doesn't exist and one without a grant have equal ones but for
 * the id.
 */
export interface DialDenial {
  readonly denialId?: string | undefined;
  readonly reason?: VerdictReason | undefined;
  readonly ruleId?: string | undefined;
  /** What would allow it. */
  readonly hint?: string | undefined;
}

/** A dial that failed; `code` is the errno a socket would have given ("EACCES" for a denial). */
export class DialError extends Error {
  override readonly name = "DialError";
  readonly kind: DialFailure;
  readonly code: string;
  readonly denialId: string | undefined;
  readonly reason: VerdictReason | undefined;
  readonly ruleId: string | undefined;
  readonly hint: string | undefined;

  constructor(kind: DialFailure, target: DialTarget, denial: DialDenial = {}) {
    super(describe(kind, target, denial));
    this.kind = kind;
    this.code = FAILURE_CODES[kind];
    this.denialId = denial.denialId;
    this.reason = denial.reason;
    this.ruleId = denial.ruleId;
    this.hint = denial.hint;
  }
}

function describe(kind: DialFailure, target: DialTarget, denial: DialDenial): string {
  const host = parseAddress(target.host) !== undefined && target.host.includes(":") ? `[${target.host}]` : target.host;
  const text = `${kind}: ${JSON.stringify(`${host}:${target.port}`).slice(1, -1)}`; // escaped: a client named it
  if (kind !== "denied") return text;
  const rule = denial.ruleId === undefined ? "" : ` by rule ${denial.ruleId}`;
  return `${text} ${denial.reason ?? "NO_GRANT"}${rule}${denial.denialId === undefined ? "" : ` (${denial.denialId})`}`;
}

/**
 * An IP literal without brackets, or a name: service, then node, then one that a `host:` route covers. `service:NAME`
 * and `node:NAME` mean that alone; port 0 is a service's only port.
 */
export interface DialTarget {
  readonly host: string;
  readonly port: number;
}

export interface OverlayDialer {
  /** Resolves once the far end has answered. @throws DialError */
  dial(target: DialTarget, signal?: AbortSignal): Promise<OverlaySocket>;
  /** As `dial`, for who makes a stream of his own of it, or none. */
  dialTcp(target: DialTarget, signal?: AbortSignal): Promise<HeldTcp>;
  /**
   * A UDP socket at this peer's own address of the remote's family. @throws DialError when the target is denied or
   * unknown
   */
  bindUdp(target: DialTarget): { readonly socket: UdpSocket; readonly remote: Endpoint };
}

/** The verdict for a flow that this peer is about to open; a denial has been recorded under `denialId`. */
export interface OutboundJudgement extends Verdict {
  readonly denialId: string | undefined;
}

/** A denial that the far end told us of (peer link) or that our own filter recorded for one of our packets. */
export interface DenialNotice {
  readonly id: string;
  readonly hop: "source" | "destination";
  readonly destination: Address;
  readonly protocol: number;
  readonly destinationPort: number;
  readonly reason: VerdictReason;
  readonly ruleId: string | undefined;
}

/** The dialer's narrow view of the engine; the composition implements it. */
export interface OverlayView {
  /** Undefined in `wg` mode and before the first netmap. */
  netmap(): NetmapView | undefined;
  /**
   * Judges as the packet path will; a denial is recorded, its id is in the answer. In `wg` mode: ALLOW_ALL if a peer
   * has it.
   */
  judgeOutbound(address: Address, protocol: FilterProtocol, port: number): OutboundJudgement;
  /** For a name that the gateway `session` would resolve (`outboundHosts`); a denial is recorded. */
  judgeOutboundHost(session: string, name: string, protocol: FilterProtocol, port: number): OutboundJudgement;
  /** Records the denial of a name that this peer knows nothing of, and gives its id. */
  denyName(name: string, protocol: FilterProtocol, port: number): string;
  /** Returns a function that takes the listener away. */
  onDenial(listener: (denial: DenialNotice) => void): () => void;
  /** This peer's own overlay address of the remote's family; undefined when it has none. */
  localAddressFor(remote: Address): Address | undefined;
}

/** Names that are not the coordinator's: in `wg` mode the DNS servers of the file, asked through the tunnel. */
export interface NameResolver {
  /** In the order to try; empty: there is no such name. */
  resolve(name: string, signal: AbortSignal): Promise<readonly Address[]>;
}
