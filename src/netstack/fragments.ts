// Putting fragmented packets together, and cutting those that are too big: RFC 791 §3.2, RFC 8200 §4.5. Whatever
// overlaps is refused whole, in both families (RFC 5722 §4): no two readers of such a packet need agree on what it
// says. Bounded in datagrams, per source, in pieces, and in time; beyond a bound the newcomer is dropped.
import { formatAddress } from "../base/address.ts";
import { equalBytes, writeU16 } from "../base/bytes.ts";
import {
  FRAGMENTS_DATAGRAMS_MAX,
  FRAGMENTS_PER_DATAGRAM_MAX,
  FRAGMENTS_PER_SOURCE_MAX,
  FRAGMENTS_TIMEOUT_MS,
} from "../base/limits.ts";
import { checksumOf } from "../wire/checksum.ts";
import { fragmentPartOffset, type PacketInfo } from "../wire/packet.ts";
import type { Deadlines, Timed } from "./deadlines.ts";

const IP_TOTAL_MAX_BYTES = 65_535;

export type FragmentDrop = "FRAGMENTS_FULL" | "FRAGMENT_OVERLAP" | "FRAGMENT_INCONSISTENT" | "FRAGMENTS_TIMED_OUT";

interface Piece {
  readonly from: number;
  readonly bytes: Uint8Array;
}

class Assembly implements Timed {
  deadlineMs = Number.POSITIVE_INFINITY;
  heapIndex = -1;
  /** Sorted, without overlap. */
  pieces: Piece[] = [];
  heldBytes = 0;
  /** Length of the whole payload, −1 until the last fragment is there. */
  payloadBytes = -1;
  /** What stands before the payload in the first fragment, its header chain up to the fragment header. */
  head: Uint8Array | undefined;
  /** Refused whole: kept so that its other fragments fall too. */
  isPoisoned = false;
  readonly key: string;
  readonly source: string;
  readonly #onTimeout: (assembly: Assembly) => void;

  constructor(key: string, source: string, onTimeout: (assembly: Assembly) => void) {
    this.key = key;
    this.source = source;
    this.#onTimeout = onTimeout;
  }

  handleDeadline(_nowMs: number): void {
    this.#onTimeout(this);
  }

  get isComplete(): boolean {
    return this.head !== undefined && this.payloadBytes >= 0 && this.heldBytes === this.payloadBytes;
  }
}

export class Fragments {
  readonly #deadlines: Deadlines;
  readonly #count: (what: FragmentDrop) => void;
  readonly #assemblies = new Map<string, Assembly>();
  readonly #bySource = new Map<string, number>();

  constructor(deadlines: Deadlines, count: (what: FragmentDrop) => void) {
    this.#deadlines = deadlines;
    this.#count = count;
  }

  get size(): number {
    return this.#assemblies.size;
  }

  /** The whole packet once its last missing fragment has come. */
  handleFragment(nowMs: number, buffer: Uint8Array, offset: number, info: PacketInfo): Uint8Array | undefined {
    const assembly = this.#find(nowMs, info);
    if (assembly === undefined) {
      this.#count("FRAGMENTS_FULL");
      return undefined;
    }
    if (assembly.isPoisoned) return undefined;
    const drop = insert(assembly, buffer, offset, info);
    if (drop !== undefined) {
      this.#count(drop);
      assembly.isPoisoned = true;
      assembly.pieces = [];
      assembly.head = undefined;
      return undefined;
    }
    if (!assembly.isComplete) return undefined;
    this.#forget(assembly);
    return join(assembly, info.version);
  }

  /** RFC 791: source, destination, protocol, id; RFC 8200: source, destination, id. */
  #find(nowMs: number, info: PacketInfo): Assembly | undefined {
    const source = formatAddress(info.source);
    const protocol = info.version === 4 ? info.protocol : 0;
    const key = `${source} ${formatAddress(info.destination)} ${info.fragmentId} ${protocol}`;
    const known = this.#assemblies.get(key);
    if (known !== undefined) return known;
    const ofSource = this.#bySource.get(source) ?? 0;
    if (this.#assemblies.size >= FRAGMENTS_DATAGRAMS_MAX || ofSource >= FRAGMENTS_PER_SOURCE_MAX) return undefined;
    const assembly = new Assembly(key, source, (late) => {
      if (!late.isPoisoned) this.#count("FRAGMENTS_TIMED_OUT");
      this.#forget(late);
    });
    this.#assemblies.set(key, assembly);
    this.#bySource.set(source, ofSource + 1);
    this.#deadlines.set(assembly, nowMs + FRAGMENTS_TIMEOUT_MS);
    return assembly;
  }

  #forget(assembly: Assembly): void {
    this.#assemblies.delete(assembly.key);
    this.#deadlines.set(assembly, Number.POSITIVE_INFINITY);
    const left = this.#bySource.get(assembly.source)! - 1;
    if (left === 0) this.#bySource.delete(assembly.source);
    else this.#bySource.set(assembly.source, left);
  }
}

function insert(assembly: Assembly, buffer: Uint8Array, offset: number, info: PacketInfo): FragmentDrop | undefined {
  const partOffset = fragmentPartOffset(info);
  const from = info.fragmentOffsetBytes;
  const partBytes = info.totalBytes - partOffset;
  const to = from + partBytes;
  const part = buffer.subarray(offset + partOffset, offset + info.totalBytes);
  const { pieces } = assembly;
  let index = pieces.length;
  while (index > 0 && pieces[index - 1]!.from >= from) index--;
  const after = pieces[index];
  const before = pieces[index - 1];
  if (after !== undefined && after.from === from && equalBytes(after.bytes, part)) {
    // Twice is harmless, but not once as the last and once as one with more to come.
    const wasLast = assembly.payloadBytes === to;
    return wasLast === info.hasMoreFragments ? "FRAGMENT_INCONSISTENT" : undefined;
  }
  if (after !== undefined && after.from < to) return "FRAGMENT_OVERLAP";
  if (before !== undefined && before.from + before.bytes.length > from) return "FRAGMENT_OVERLAP";
  if (!info.hasMoreFragments) {
    if (assembly.payloadBytes >= 0 || after !== undefined) return "FRAGMENT_INCONSISTENT";
    assembly.payloadBytes = to;
  } else if (assembly.payloadBytes >= 0 && to > assembly.payloadBytes) {
    return "FRAGMENT_INCONSISTENT";
  }
  if (pieces.length >= FRAGMENTS_PER_DATAGRAM_MAX) return "FRAGMENTS_FULL";
  pieces.splice(index, 0, { from, bytes: part.slice() });
  assembly.heldBytes += partBytes;
  if (from === 0) assembly.head = headOf(buffer, offset, info);
  return undefined;
}

/** The first fragment's headers as they stand before an unfragmented payload. */
function headOf(buffer: Uint8Array, offset: number, info: PacketInfo): Uint8Array {
  if (info.version === 4) return buffer.slice(offset, offset + info.transportOffset);
  const head = buffer.slice(offset, offset + info.fragmentHeaderOffset);
  head[nextHeaderAt(head)] = buffer[offset + info.fragmentHeaderOffset]!;
  return head;
}

/** Where the chain of (already checked) headers names what follows it. */
function nextHeaderAt(head: Uint8Array): number {
  let field = 6;
  for (let at = 40; at < head.length; ) {
    const isAuthentication = head[field] === 51;
    field = at;
    at += isAuthentication ? (head[at + 1]! + 2) * 4 : (head[at + 1]! + 1) * 8;
  }
  return field;
}

function join(assembly: Assembly, version: 4 | 6): Uint8Array | undefined {
  const head = assembly.head!;
  const totalBytes = head.length + assembly.payloadBytes;
  if (totalBytes - (version === 6 ? 40 : 0) > IP_TOTAL_MAX_BYTES) return undefined;
  const packet = new Uint8Array(totalBytes);
  packet.set(head, 0);
  for (const piece of assembly.pieces) packet.set(piece.bytes, head.length + piece.from);
  if (version === 6) {
    writeU16(packet, 4, totalBytes - 40);
    return packet;
  }
  writeU16(packet, 2, totalBytes);
  writeU16(packet, 6, 0);
  writeU16(packet, 10, 0);
  writeU16(packet, 10, checksumOf(packet, 0, head.length));
  return packet;
}
