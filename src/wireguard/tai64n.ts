// TAI64N timestamps of initiations [WG §5.1]: a responder takes only one greater than the last, so that a replayed
// initiation is void. A clock set back must not lock a peer out: what is sent is never smaller than what was sent
// before, over restarts too.
import { readU32, writeU32 } from "../base/bytes.ts";
import { TIMESTAMP_RESERVE_MS } from "../base/limits.ts";

export const TIMESTAMP_BYTES = 12;

// 2^62 and the 10 s between TAI and UTC in 1970, as wireguard-go and the kernel have it; no leap seconds.
const TAI64_HIGH = 0x40000000;
const TAI64_LOW = 10;
// Nanoseconds are cut to 2^24 (16.8 ms) so that the stamp doesn't tell how long a handshake computes.
const TICK_NANOSECONDS = 0x1000000;
const NANOSECONDS_PER_SECOND = 1_000_000_000;

/** `nowMs` since 1970. */
export function encodeTai64n(nowMs: number): Uint8Array {
  const seconds = Math.floor(nowMs / 1000);
  const nanoseconds = Math.floor((nowMs - seconds * 1000) * 1_000_000);
  return encode(seconds + TAI64_LOW, nanoseconds - (nanoseconds % TICK_NANOSECONDS));
}

function encode(seconds: number, nanoseconds: number): Uint8Array {
  const bytes = new Uint8Array(TIMESTAMP_BYTES);
  writeU32(bytes, 0, TAI64_HIGH + Math.floor(seconds / 2 ** 32));
  writeU32(bytes, 4, seconds % 2 ** 32);
  writeU32(bytes, 8, nanoseconds);
  return bytes;
}

/** Milliseconds since 1970, rounded up. */
function decodeTai64n(stamp: Uint8Array): number {
  const seconds = (readU32(stamp, 0) - TAI64_HIGH) * 2 ** 32 + readU32(stamp, 4) - TAI64_LOW;
  return seconds * 1000 + Math.ceil(readU32(stamp, 8) / 1_000_000);
}

/** Positive when `a` is later. Big-endian, so the order of the bytes is the order in time. */
export function compareTai64n(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < TIMESTAMP_BYTES; i++) {
    const difference = a[i]! - b[i]!;
    if (difference !== 0) return difference;
  }
  return 0;
}

/** max(now, last + 1 tick). */
export function nextTai64n(nowMs: number, last: Uint8Array | undefined): Uint8Array {
  const now = encodeTai64n(nowMs);
  if (last === undefined || compareTai64n(now, last) > 0) return now;
  const seconds = (readU32(last, 0) - TAI64_HIGH) * 2 ** 32 + readU32(last, 4);
  const nanoseconds = readU32(last, 8) + TICK_NANOSECONDS;
  return nanoseconds < NANOSECONDS_PER_SECOND
    ? encode(seconds, nanoseconds)
    : encode(seconds + 1, nanoseconds - NANOSECONDS_PER_SECOND);
}

/**
 * What the state file should hold in place of `kept`, so that it stays ahead of what has been `sent`: between half a
 * reserve and a whole one, so that a handshake rarely costs a write. Undefined: there is nothing to write.
 */
export function nextTimestampReserve(kept: Uint8Array | undefined, nowMs: number, sent: Uint8Array) {
  // A clock that was set back is behind what has been sent: then the reserve lies ahead of that.
  const lastMs = Math.max(nowMs, decodeTai64n(sent));
  if (kept !== undefined && compareTai64n(kept, encodeTai64n(lastMs + TIMESTAMP_RESERVE_MS / 2)) > 0) return undefined;
  return encodeTai64n(lastMs + TIMESTAMP_RESERVE_MS);
}
