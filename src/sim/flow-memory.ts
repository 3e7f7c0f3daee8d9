// The judge's memory of one station: which flows somebody opened there. It forgets later than the filter does, never
// earlier, and knows nothing of how the filter keeps its flows.
import type { Address } from "../base/address.ts";
import { HOUR_MS, MINUTE_MS, SECOND_MS } from "../base/units.ts";
import { type Facts, isIcmp, TCP } from "./packets.ts";

export type Opener = "local" | "remote";

interface Flow {
  lastMs: number;
}

const IDLE_TCP_MS = 2 * HOUR_MS;
const IDLE_UDP_MS = 2 * MINUTE_MS;
const IDLE_ICMP_MS = 30 * SECOND_MS;

function shown({ w0, w1, w2, w3 }: Address): string {
  return `${w0},${w1},${w2},${w3}`;
}

export class FlowMemory {
  readonly #flows = new Map<string, Flow>();

  /** `facts` are those of a packet that the opener sends. */
  opened(nowMs: number, session: string, opener: Opener, facts: Facts): void {
    const key = this.#key(session, opener, facts);
    const flow = this.#flows.get(key);
    if (flow === undefined) this.#flows.set(key, { lastMs: nowMs });
    else flow.lastMs = nowMs;
  }

  /** Any packet of it passed. */
  touched(nowMs: number, session: string, opener: Opener, facts: Facts): void {
    const flow = this.#flows.get(this.#key(session, opener, facts));
    if (flow !== undefined) flow.lastMs = nowMs;
  }

  isOpen(nowMs: number, session: string, opener: Opener, facts: Facts): boolean {
    const flow = this.#flows.get(this.#key(session, opener, facts));
    if (flow === undefined) return false;
    const idleMs = facts.protocol === TCP ? IDLE_TCP_MS : isIcmp(facts) ? IDLE_ICMP_MS : IDLE_UDP_MS;
    return nowMs - flow.lastMs < idleMs;
  }

  forget(session: string): void {
    for (const key of this.#flows.keys()) if (key.startsWith(`${session} `)) this.#flows.delete(key);
  }

  clear(): void {
    this.#flows.clear();
  }

  #key(session: string, opener: Opener, facts: Facts): string {
    const { protocol, source, destination, sourcePort, destinationPort } = facts;
    return `${session} ${opener} ${protocol} ${shown(source)} ${sourcePort} ${shown(destination)} ${destinationPort}`;
  }
}
