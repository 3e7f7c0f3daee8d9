// The TCP header: RFC 9293 §3.1; options MSS (§3.2), window scale (RFC 7323 §2). Offsets from the segment's start.
import { writeU16, writeU32 } from "../base/bytes.ts";

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
export const WINDOW_SCALE_MAX = 14; // RFC 7323 §2.3

/** What a SYN may carry. Malformed options end the walk; what came before them stands (RFC 9293 §3.1, MUST-7). */
export class TcpOptions {
  /** 0 when absent. */
  mssBytes = 0;
  /** −1 when absent: then neither end scales. */
  windowScale = -1;

  /** Reads the options of the header at `at`, whose whole length the decoder has checked. */
  read(buffer: Uint8Array, at: number, headerBytes: number): void {
    this.mssBytes = 0;
    this.windowScale = -1;
    const end = at + headerBytes;
    let i = at + TCP_HEADER_BYTES;
    while (i < end) {
      const kind = buffer[i]!;
      if (kind === OPTION_END) return;
      if (kind === OPTION_NOP) {
        i++;
        continue;
      }
      const optionBytes = i + 1 < end ? buffer[i + 1]! : 0;
      if (optionBytes < 2 || i + optionBytes > end) return;
      if (kind === OPTION_MSS && optionBytes === 4) this.mssBytes = (buffer[i + 2]! << 8) | buffer[i + 3]!;
      if (kind === OPTION_WINDOW_SCALE && optionBytes === 3) {
        this.windowScale = Math.min(buffer[i + 2]!, WINDOW_SCALE_MAX);
      }
      i += optionBytes;
    }
  }
}

/** Writes MSS, and window scale unless it is −1; returns the bytes written, a multiple of 4. */
export function writeSynOptions(buffer: Uint8Array, at: number, mssBytes: number, windowScale: number): number {
  buffer[at] = OPTION_MSS;
  buffer[at + 1] = 4;
  writeU16(buffer, at + 2, mssBytes);
  if (windowScale < 0) return 4;
  buffer[at + 4] = OPTION_NOP;
  buffer[at + 5] = OPTION_WINDOW_SCALE;
  buffer[at + 6] = 3;
  buffer[at + 7] = windowScale;
  return 8;
}
