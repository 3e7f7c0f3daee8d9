// The TCP header: RFC 9293 §3.1; options MSS (§3.2), window scale and timestamps (RFC 7323), selective acknowledgments
// (RFC 2018). Offsets from the segment's start.
import { readU32, writeU16, writeU32 } from "../base/bytes.ts";

export const TCP_HEADER_BYTES = 20;
export const TCP_CHECKSUM_AT = 16;

/**
 * Twenty bytes without options; checksum and urgent pointer 0. `headerBytes` counts options that the caller writes
 * behind.
 */
export function writeTcpHeader(
  buffer: Uint8Array,
  at: number,
  sourcePort: number,
  destinationPort: number,
  sequence: number,
  acknowledgment: number,
  headerBytes: number,
  flags: number,
  window: number,
): void {
  writeU16(buffer, at, sourcePort);
  writeU16(buffer, at + 2, destinationPort);
  writeU32(buffer, at + 4, sequence);
  writeU32(buffer, at + 8, acknowledgment);
  buffer[at + 12] = headerBytes << 2;
  buffer[at + 13] = flags;
  writeU16(buffer, at + 14, window);
  writeU32(buffer, at + 16, 0);
}

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;
const OPTION_WINDOW_SCALE = 3;
const OPTION_SACK_PERMITTED = 4;
const OPTION_SACK = 5;
const OPTION_TIMESTAMPS = 8;
const TIMESTAMPS_BYTES = 10;
/** NOP NOP timestamps, as nearly all segments begin their options. */
const PADDED_TIMESTAMPS_WORD = 0x0101_080a;
/** Timestamps with two NOPs before them, as every other stack lays them out (RFC 7323, appendix A). */
export const TIMESTAMPS_PADDED_BYTES = 12;
export const WINDOW_SCALE_MAX = 14; // RFC 7323 §2.3
/** Blocks that fit into 40 bytes of options (RFC 2018 §3): one fewer beside timestamps. */
export const SACK_BLOCKS_MAX = 4;

/** What a header carries. Malformed options end the walk; what came before them stands (RFC 9293 §3.1, MUST-7). */
export class TcpOptions {
  /** 0 when absent. */
  mssBytes = 0;
  /** −1 when absent: then neither end scales. */
  windowScale = -1;
  isSackPermitted = false;
  hasTimestamps = false;
  /** TSval and TSecr (RFC 7323 §3.2). */
  timestamp = 0;
  timestampEcho = 0;
  sackBlocks = 0;
  /** Left and right edge of each block in turn; the right one is behind the last byte. */
  readonly sackEdges = new Uint32Array(2 * SACK_BLOCKS_MAX);

  /** Reads the options of the header at `at`, whose whole length the decoder has checked. */
  read(buffer: Uint8Array, at: number, headerBytes: number): void {
    this.mssBytes = 0;
    this.windowScale = -1;
    this.isSackPermitted = false;
    this.hasTimestamps = false;
    this.sackBlocks = 0;
    if (headerBytes === TCP_HEADER_BYTES) return;
    const end = at + headerBytes;
    let i = at + TCP_HEADER_BYTES;
    if (headerBytes >= TCP_HEADER_BYTES + TIMESTAMPS_PADDED_BYTES && readU32(buffer, i) === PADDED_TIMESTAMPS_WORD) {
      this.hasTimestamps = true;
      this.timestamp = readU32(buffer, i + 4);
      this.timestampEcho = readU32(buffer, i + 8);
      i += TIMESTAMPS_PADDED_BYTES;
    }
    while (i < end) {
      const kind = buffer[i]!;
      if (kind === OPTION_END) return;
      if (kind === OPTION_NOP) {
        i++;
        continue;
      }
      const optionBytes = i + 1 < end ? buffer[i + 1]! : 0;
      if (optionBytes < 2 || i + optionBytes > end) return;
      this.#take(buffer, i, kind, optionBytes);
      i += optionBytes;
    }
  }

  #take(buffer: Uint8Array, at: number, kind: number, optionBytes: number): void {
    if (kind === OPTION_TIMESTAMPS && optionBytes === TIMESTAMPS_BYTES) {
      this.hasTimestamps = true;
      this.timestamp = readU32(buffer, at + 2);
      this.timestampEcho = readU32(buffer, at + 6);
    } else if (kind === OPTION_SACK && optionBytes % 8 === 2 && optionBytes > 2) {
      this.sackBlocks = Math.min((optionBytes - 2) / 8, SACK_BLOCKS_MAX);
      for (let i = 0; i < 2 * this.sackBlocks; i++) this.sackEdges[i] = readU32(buffer, at + 2 + 4 * i);
    } else if (kind === OPTION_MSS && optionBytes === 4) this.mssBytes = (buffer[at + 2]! << 8) | buffer[at + 3]!;
    else if (kind === OPTION_WINDOW_SCALE && optionBytes === 3) {
      this.windowScale = Math.min(buffer[at + 2]!, WINDOW_SCALE_MAX);
    } else if (kind === OPTION_SACK_PERMITTED && optionBytes === 2) this.isSackPermitted = true;
  }

  /** For whoever keeps those of a SYN beyond its turn. */
  copyFrom(other: TcpOptions): void {
    this.mssBytes = other.mssBytes;
    this.windowScale = other.windowScale;
    this.isSackPermitted = other.isSackPermitted;
    this.hasTimestamps = other.hasTimestamps;
    this.timestamp = other.timestamp;
    this.timestampEcho = other.timestampEcho;
    this.sackBlocks = other.sackBlocks;
    this.sackEdges.set(other.sackEdges);
  }
}

/** What our SYN offers, or answers of what was offered. */
export interface SynOptions {
  readonly mssBytes: number;
  /** −1: left out. */
  readonly windowScale: number;
  readonly isSackPermitted: boolean;
  /** Undefined: left out. */
  readonly timestamps: { readonly value: number; readonly echo: number } | undefined;
}

/** Returns the bytes written, a multiple of 4 of at most 20. */
export function writeSynOptions(buffer: Uint8Array, at: number, options: SynOptions): number {
  const { mssBytes, windowScale, isSackPermitted, timestamps } = options;
  let i = at;
  buffer[i] = OPTION_MSS;
  buffer[i + 1] = 4;
  writeU16(buffer, i + 2, mssBytes);
  i += 4;
  if (timestamps !== undefined || isSackPermitted) {
    buffer[i] = isSackPermitted ? OPTION_SACK_PERMITTED : OPTION_NOP;
    buffer[i + 1] = isSackPermitted ? 2 : OPTION_NOP;
    i += 2;
    if (timestamps === undefined) {
      buffer[i] = OPTION_NOP;
      buffer[i + 1] = OPTION_NOP;
      i += 2;
    } else i += writeTimestamps(buffer, i, timestamps.value, timestamps.echo);
  }
  if (windowScale >= 0) {
    buffer[i] = OPTION_NOP;
    buffer[i + 1] = OPTION_WINDOW_SCALE;
    buffer[i + 2] = 3;
    buffer[i + 3] = windowScale;
    i += 4;
  }
  return i - at;
}

function writeTimestamps(buffer: Uint8Array, at: number, value: number, echo: number): number {
  buffer[at] = OPTION_TIMESTAMPS;
  buffer[at + 1] = TIMESTAMPS_BYTES;
  writeU32(buffer, at + 2, value);
  writeU32(buffer, at + 6, echo);
  return TIMESTAMPS_BYTES;
}

/** Returns the bytes written: TIMESTAMPS_PADDED_BYTES. */
export function writePaddedTimestamps(buffer: Uint8Array, at: number, value: number, echo: number): number {
  buffer[at] = OPTION_NOP;
  buffer[at + 1] = OPTION_NOP;
  return 2 + writeTimestamps(buffer, at + 2, value, echo);
}

/** `edges`: left and right of each block. Returns the bytes written, a multiple of 4. */
export function writeSack(buffer: Uint8Array, at: number, edges: Uint32Array, blocks: number): number {
  buffer[at] = OPTION_NOP;
  buffer[at + 1] = OPTION_NOP;
  buffer[at + 2] = OPTION_SACK;
  buffer[at + 3] = 2 + 8 * blocks;
  for (let i = 0; i < 2 * blocks; i++) writeU32(buffer, at + 4 + 4 * i, edges[i]!);
  return 4 + 8 * blocks;
}
