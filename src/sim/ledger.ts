// Every packet that a simulated host ever sent, by its id: who it was, what it said, and where it came out.
import type { Facts, Mark, Role } from "./packets.ts";

export interface SentPacket {
  readonly id: number;
  readonly atMs: number;
  /** Number of the station, and the session it had then. */
  readonly station: number;
  readonly session: string;
  readonly facts: Facts;
  readonly mark: Mark;
  readonly bytes: Uint8Array;
  /** By the judge over what the sender knew then; undefined for senders that keep no rules. */
  readonly permittedAtSource: boolean | undefined;
  /** Its part of a datagram in fragments, or the whole. */
  readonly part: "whole" | "first" | "later";
  /** Where it came out; twice is an error. */
  deliveredTo: number | undefined;
}

export class Ledger {
  readonly #packets: SentPacket[] = [];
  delivered = 0;

  get nextId(): number {
    return this.#packets.length;
  }

  get sent(): number {
    return this.#packets.length;
  }

  add(packet: SentPacket): void {
    this.#packets.push(packet);
  }

  find(id: number): SentPacket | undefined {
    return this.#packets[id];
  }

  countOf(role: Role): number {
    return this.#packets.filter((packet) => packet.mark.role === role).length;
  }
}
