// Which outer endpoints a datagram for one peer goes to. A confirmed endpoint (authenticated source, [WG §2.1] roaming)
// is used alone; without a fresh one, handshake initiations go to every candidate at once and the first answer confirms
// its endpoint. The same initiation may be sent many times: the responder's timestamp guard takes the first to arrive
// and drops the rest.
import { type Endpoint, equalEndpoint } from "../base/address.ts";
import { PATH_CANDIDATES_MAX, PATH_CONFIRMED_MS } from "../base/limits.ts";

const NONE: readonly Endpoint[] = [];

export class PeerPath {
  #candidates: readonly Endpoint[] = NONE;
  #confirmed: Endpoint | undefined;
  #confirmedMs = Number.NEGATIVE_INFINITY;

  /**
   * The configured or reported endpoints, best first; beyond PATH_CANDIDATES_MAX they are left out. True when the
   * confirmed one was among them and is no more: the peer has moved, and may have nothing to say from where it is.
   * `replacesConfirmed`: somebody has said that the peer is there now, so what was confirmed elsewhere is forgotten.
   */
  setCandidates(candidates: readonly Endpoint[], replacesConfirmed = false): boolean {
    const distinct: Endpoint[] = [];
    for (const candidate of candidates) {
      if (distinct.length === PATH_CANDIDATES_MAX) break;
      if (!distinct.some((known) => equalEndpoint(known, candidate))) distinct.push(candidate);
    }
    const hasMoved = this.#isConfirmedAmong(this.#candidates) && !this.#isConfirmedAmong(distinct);
    if (hasMoved) this.#confirmedMs = Number.NEGATIVE_INFINITY;
    this.#candidates = distinct;
    if (!replacesConfirmed || this.#confirmed === undefined || this.#isConfirmedAmong(distinct)) return hasMoved;
    this.#confirmed = undefined;
    this.#confirmedMs = Number.NEGATIVE_INFINITY;
    return true;
  }

  #isConfirmedAmong(candidates: readonly Endpoint[]): boolean {
    const confirmed = this.#confirmed;
    return confirmed !== undefined && candidates.some((candidate) => equalEndpoint(candidate, confirmed));
  }

  /** Whether datagrams for the peer may go there. */
  leadsTo(endpoint: Endpoint): boolean {
    if (this.#confirmed !== undefined && equalEndpoint(this.#confirmed, endpoint)) return true;
    return this.#candidates.some((candidate) => equalEndpoint(candidate, endpoint));
  }

  get confirmed(): Endpoint | undefined {
    return this.#confirmed;
  }

  get candidates(): readonly Endpoint[] {
    return this.#candidates;
  }

  /** An authenticated datagram came from there. */
  confirm(nowMs: number, endpoint: Endpoint): void {
    this.#confirmedMs = nowMs;
    if (this.#confirmed !== undefined && equalEndpoint(this.#confirmed, endpoint)) return;
    this.#confirmed = endpoint;
  }

  /** Something authenticated came from the confirmed endpoint a moment ago. */
  isFresh(nowMs: number): boolean {
    return nowMs - this.#confirmedMs < PATH_CONFIRMED_MS;
  }

  /** Data and responses: the confirmed endpoint, else the first candidate. Undefined: nowhere to send. */
  forData(): Endpoint | undefined {
    return this.#confirmed ?? this.#candidates[0];
  }

  /** Initiations: the confirmed endpoint alone while it is fresh, else it and every candidate. */
  forInitiation(nowMs: number): readonly Endpoint[] {
    const confirmed = this.#confirmed;
    if (confirmed === undefined) return this.#candidates;
    if (this.isFresh(nowMs)) return [confirmed];
    return [confirmed, ...this.#candidates.filter((candidate) => !equalEndpoint(candidate, confirmed))];
  }
}
