// The Internet checksum: RFC 1071, with the pseudo-headers of RFC 9293 §3.1, RFC 768 and RFC 8200 §8.1. A sum is
// carried unfolded between calls, so that a header and its payload may lie apart. The test keeps the unrolled loop
// equal to a plain one.

/**
 * Adds the 16-bit words of the bytes to `sum`; an odd last byte counts as its word's high half. Unfolded, below 2^32
 * for ≤ 64 KiB.
 */
export function sumBytes(bytes: Uint8Array, at: number, length: number, sum: number): number {
  const end = at + length;
  const unrolledEnd = at + (length & ~15);
  let high = 0;
  let low = 0;
  let i = at;
  for (; i < unrolledEnd; i += 16) {
    high +=
      bytes[i]! +
      bytes[i + 2]! +
      bytes[i + 4]! +
      bytes[i + 6]! +
      bytes[i + 8]! +
      bytes[i + 10]! +
      bytes[i + 12]! +
      bytes[i + 14]!;
    low +=
      bytes[i + 1]! +
      bytes[i + 3]! +
      bytes[i + 5]! +
      bytes[i + 7]! +
      bytes[i + 9]! +
      bytes[i + 11]! +
      bytes[i + 13]! +
      bytes[i + 15]!;
  }
  for (; i + 1 < end; i += 2) {
    high += bytes[i]!;
    low += bytes[i + 1]!;
  }
  if (i < end) high += bytes[i]!;
  return foldOnce(sum) + foldOnce(high * 256 + low);
}

function foldOnce(sum: number): number {
  return (sum >>> 16) + (sum & 0xffff);
}

/** The 16-bit word that is written into a checksum field. */
export function foldChecksum(sum: number): number {
  const folded = foldOnce(foldOnce(foldOnce(sum)));
  return ~folded & 0xffff;
}

/** Of a whole range: 0 when the range carries its own right checksum. */
export function checksumOf(bytes: Uint8Array, at: number, length: number): number {
  return foldChecksum(sumBytes(bytes, at, length, 0));
}

/**
 * Addresses are four words each, IPv4 in mapped form. The two `ffff` groups of a mapped pair add up to 0 in ones'
 * complement, so that one function serves both families.
 */
export function sumPseudoHeader(
  source0: number,
  source1: number,
  source2: number,
  source3: number,
  destination0: number,
  destination1: number,
  destination2: number,
  destination3: number,
  protocol: number,
  transportBytes: number,
): number {
  return (
    foldOnce(source0) +
    foldOnce(source1) +
    foldOnce(source2) +
    foldOnce(source3) +
    foldOnce(destination0) +
    foldOnce(destination1) +
    foldOnce(destination2) +
    foldOnce(destination3) +
    protocol +
    foldOnce(transportBytes)
  );
}
