// Crockford's base32, lower case (0-9 a-h j k m n p-t v-z): identifiers that survive being read aloud. No padding, no
// check digit.
import { type Random, randomBytes } from "./random.ts";

const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";

/** Most significant bit first; the last character is filled with zero bits. 10 bytes give 16 characters, 32 give 52. */
export function toBase32(bytes: Uint8Array): string {
  let out = "";
  let held = 0;
  let bits = 0;
  for (const byte of bytes) {
    held = ((held << 8) | byte) & 0xfff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      out += ALPHABET[(held >>> bits) & 31];
    }
  }
  return bits === 0 ? out : out + ALPHABET[(held << (5 - bits)) & 31];
}

/** Strict: only what `toBase32` writes, so that an identifier has one spelling; else undefined. */
export function fromBase32(text: string): Uint8Array | undefined {
  const out = new Uint8Array(Math.floor((text.length * 5) / 8));
  let held = 0;
  let bits = 0;
  let at = 0;
  for (const character of text) {
    const value = ALPHABET.indexOf(character);
    if (value < 0) return undefined;
    held = ((held << 5) | value) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      out[at++] = held >>> bits;
    }
  }
  return toBase32(out) === text ? out : undefined;
}

export const ID_BYTES = 10;

/** `randomId(random, "s")` is `s_` and 16 characters: 80 random bits. */
export function randomId(random: Random, letter: string): string {
  return `${letter}_${toBase32(randomBytes(random, ID_BYTES))}`;
}
