// Sequence numbers wrap at 2^32: RFC 9293 §3.4. All are kept as unsigned numbers; differences are signed.

export function sequenceAdd(sequence: number, bytes: number): number {
  return (sequence + bytes) >>> 0;
}

/** `a − b` on the circle, in [−2^31, 2^31). */
export function sequenceDifference(a: number, b: number): number {
  return (a - b) | 0;
}

export function sequenceBefore(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

export function sequenceAfter(a: number, b: number): boolean {
  return ((a - b) | 0) > 0;
}
