// How large a receive buffer has to be so that it is never what limits the sender: twice of what its user reads in a
// round trip (dynamic right-sizing, Fisk and Feng 2001). The round trip is the least time between an acknowledgment of
// ours and data that echoes it (RFC 7323 §4); without timestamps nothing grows.
import { LeastRtt } from "./least-rtt.ts";

export class RightSizing {
  readonly #maxBytes: number;
  readonly #least = new LeastRtt();
  #roundBeganMs = 0;
  #readBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Data came that echoes what we sent so long ago. */
  sample(nowMs: number, elapsedMs: number): void {
    this.#least.sample(nowMs, elapsedMs);
  }

  /** The user has read; returns the size that the buffer should have. */
  read(nowMs: number, bytes: number, bufferBytes: number): number {
    const rttMs = this.#least.ms;
    this.#readBytes += bytes;
    // Below a tick of the timestamps' clock even the smallest buffer carries a gigabyte a second.
    if (rttMs === Number.POSITIVE_INFINITY || rttMs === 0) return bufferBytes;
    const sinceMs = nowMs - this.#roundBeganMs;
    if (sinceMs < rttMs) return bufferBytes;
    const inRoundBytes = (this.#readBytes * rttMs) / sinceMs;
    this.#roundBeganMs = nowMs;
    this.#readBytes = 0;
    return 2 * inRoundBytes > bufferBytes ? Math.min(2 * bufferBytes, this.#maxBytes) : bufferBytes;
  }
}
