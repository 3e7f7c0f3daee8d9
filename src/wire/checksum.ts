// The Internet checksum: RFC 1071, with the pseudo-headers of RFC 9293 §3.1, RFC 768 and RFC 8200 §8.1. A sum is
// carried unfolded between calls, so that a header and its payload may lie apart. Long ranges are read by 32-bit words
// of the machine's order from the first word's boundary on (RFC 1071 §2 B: the sum of swapped words is the swapped
// sum, and so is that of words that begin at an odd byte); the test keeps that path equal to a plain loop.

const IS_LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
const WORDS_MIN_BYTES = 64;

/** Words over the two buffers last asked about: one to read from, one to write to. */
let words = new Int32Array(0);
let otherWords = new Int32Array(0);

function wordsOf(buffer: ArrayBufferLike): Int32Array {
  if (words.buffer === buffer) return words;
  const wanted = otherWords.buffer === buffer ? otherWords : new Int32Array(buffer, 0, buffer.byteLength >>> 2);
  otherWords = words;
  words = wanted as Int32Array<ArrayBuffer>;
  return words;
}

/**
 * Adds the 16-bit words of the bytes to `sum`; an odd last byte counts as its word's high half. Unfolded, below 2^32
 * for up to 64 KiB.
 */
export function sumBytes(bytes: Uint8Array, at: number, length: number, sum: number): number {
  const end = at + length;
  let i = at;
  let total = foldOnce(sum);
  if (IS_LITTLE_ENDIAN && length >= WORDS_MIN_BYTES) {
    if (((bytes.byteOffset + at) & 3) !== 0) return sumToBoundary(bytes, at, length, total);
    const words = length >>> 2;
    total += swapFolded(sumWords(wordsOf(bytes.buffer), (bytes.byteOffset + at) >>> 2, words));
    i += words * 4;
  }
  let high = 0;
  let low = 0;
  for (; i + 1 < end; i += 2) {
    high += bytes[i]!;
    low += bytes[i + 1]!;
  }
  if (i < end) high += bytes[i]!;
  return total + foldOnce(high * 256 + low);
}

/** Of a range that begins between two words: the bytes before the boundary, then the rest. */
function sumToBoundary(bytes: Uint8Array, at: number, length: number, sum: number): number {
  if (((bytes.byteOffset + at) & 1) === 1)
    return sum + bytes[at]! * 256 + swapFolded(sumBytes(bytes, at + 1, length - 1, 0));
  return sumBytes(bytes, at + 2, length - 2, sum + bytes[at]! * 256 + bytes[at + 1]!);
}

/** In 16 bits, with its two bytes swapped. */
function swapFolded(sum: number): number {
  const folded = foldOnce(foldOnce(sum));
  return ((folded & 0xff) << 8) | (folded >>> 8);
}

/** Of both halves of each word; 64 KiB stay below 2^31. */
function sumWords(words: Int32Array, from: number, count: number): number {
  const end = from + count;
  const unrolledEnd = from + (count & ~7);
  let low = 0;
  let high = 0;
  let i = from;
  for (; i < unrolledEnd; i += 8) {
    const a = words[i]!;
    const b = words[i + 1]!;
    const c = words[i + 2]!;
    const d = words[i + 3]!;
    const e = words[i + 4]!;
    const f = words[i + 5]!;
    const g = words[i + 6]!;
    const h = words[i + 7]!;
    low += (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff);
    low += (e & 0xffff) + (f & 0xffff) + (g & 0xffff) + (h & 0xffff);
    high += (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16);
    high += (e >>> 16) + (f >>> 16) + (g >>> 16) + (h >>> 16);
  }
  for (; i < end; i++) {
    low += words[i]! & 0xffff;
    high += words[i]! >>> 16;
  }
  return low + high;
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
