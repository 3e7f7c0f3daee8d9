// Once the faults have stopped: every pair that may talk is tried, both ways at once, once a second, until the answer
// is back.
import type { Address } from "../base/address.ts";
import { SECOND_MS } from "../base/units.ts";
import { probesTo, sourceFor } from "./host.ts";
import type { Violation } from "./invariants.ts";
import { type Law, mayOpen } from "./law.ts";
import type { SentPacket } from "./ledger.ts";
import { type Facts, shownFacts, turned } from "./packets.ts";
import type { Station } from "./station.ts";

/**
 * Every allowed pair talks within this after the last fault: a dead session is noticed after 15 s of silence [WG §6.4],
 * the handshake tried again 5 s later, and once more if the first was lost in a NAT that was yet to open.
 */
export const TALK_WITHIN_MS = 30 * SECOND_MS;

export interface Probe {
  readonly from: Station;
  readonly to: Station;
  readonly facts: Facts;
  doneMs: number | undefined;
}

export class Probes {
  readonly #law: Law;
  readonly #startMs: number;
  readonly #probes: Probe[] = [];

  constructor(law: Law, nowMs: number, stations: readonly Station[]) {
    this.#law = law;
    this.#startMs = nowMs;
    for (const from of stations) for (const to of stations) this.#addPair(from, to);
  }

  get size(): number {
    return this.#probes.length;
  }

  waiting(): Probe[] {
    return this.#probes.filter((probe) => probe.doneMs === undefined);
  }

  slowestMs(nowMs: number): number {
    return Math.max(0, ...this.#probes.map((probe) => (probe.doneMs ?? nowMs) - this.#startMs));
  }

  /** A packet came out at `station`: is it the answer that one waits for? */
  note(nowMs: number, station: Station, sent: SentPacket): void {
    if (sent.mark.role !== "answer") return;
    const asked = turned(sent.facts);
    for (const probe of this.waiting()) {
      const { facts } = probe;
      if (probe.from !== station || facts.protocol !== asked.protocol) continue;
      if (facts.sourcePort !== asked.sourcePort || facts.destinationPort !== asked.destinationPort) continue;
      if (facts.source.w3 !== asked.source.w3 || facts.destination.w3 !== asked.destination.w3) continue;
      probe.doneMs = nowMs;
    }
  }

  silence(): Violation | undefined {
    const waiting = this.waiting();
    if (waiting.length === 0) return undefined;
    const shown = waiting.map(({ from, to, facts }) => `${from.number} → ${to.number} ${shownFacts(facts)}`);
    return { invariant: "allowed-pairs-talk", detail: shown.join("; ") };
  }

  /** One for an own address and one for a service of `to`, of whatever is allowed for long enough. */
  #addPair(from: Station, to: Station): void {
    if (from === to || from.plan.isHostile || to.plan.isHostile) return;
    const source = this.#law.world.sessions.get(from.session);
    const target = this.#law.world.sessions.get(to.session);
    if (source === undefined || target === undefined) return;
    this.#add(from, to, source.addresses, target.addresses);
    this.#add(from, to, source.addresses, [...target.serviceAddresses.values()]);
  }

  #add(from: Station, to: Station, sources: readonly Address[], targets: readonly Address[]): void {
    for (const destination of targets) {
      const source = sourceFor(sources, destination);
      if (source === undefined) continue;
      for (const facts of probesTo(source, destination)) {
        const isAllowed = [0, TALK_WITHIN_MS + SECOND_MS].every((laterMs) =>
          mayOpen(this.#law, from.session, to.session, facts, this.#startMs + laterMs),
        );
        if (!isAllowed) continue;
        this.#probes.push({ from, to, facts, doneMs: undefined });
        return;
      }
    }
  }
}
