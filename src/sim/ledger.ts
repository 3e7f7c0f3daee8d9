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
  /** The whole, its part of a datagram in fragments, or a segment of a userspace stack, which carries no mark. */
  readonly part: "whole" | "first" | "later" | "segment";
  /** Where it came out; twice is an error. */
  deliveredTo: number | undefined;
}

export class Ledger {
  readonly #packets: SentPacket[] = [];
  readonly #segments = new Map<string, SentPacket[]>();
  delivered = 0;

  get nextId(): number {
    return this.#packets.length;
  }

  get sent(): number {
    return this.#packets.length;
  }

  add(packet: SentPacket): void {
    this.#packets.push(packet);
    if (packet.part !== "segment") return;
    const key = keyOf(packet.bytes);
    const alike = this.#segments.get(key);
    if (alike === undefined) this.#segments.set(key, [packet]);
    else alike.push(packet);
  }

  /** Of segments with the same bytes (a retransmission) the first that has not come out yet, else the last. */
  findSegment(bytes: Uint8Array): SentPacket | undefined {
    const alike = this.#segments.get(keyOf(bytes));
    return alike?.find((packet) => packet.deliveredTo === undefined) ?? alike?.at(-1);
  }

  find(id: number): SentPacket | undefined {
    return this.#packets[id];
  }

  countOf(role: Role): number {
    return this.#packets.filter((packet) => packet.mark.role === role).length;
  }
}

function keyOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}
