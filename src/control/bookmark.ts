// How far the coordinator's store was, sealed for the coordinator itself: peers keep it without reading it and show it
// at their next connection. So a coordinator that was put back to an older state learns of it from the first peer that
// has seen a newer one, and a cut-off end of the audit log shows.
import { concatBytes, fromHex, readU16, readU32, toHex, writeU16, writeU32 } from "../base/bytes.ts";
import { type Random, randomBytes } from "../base/random.ts";
import type { Crypto } from "../crypto/provider.ts";
import { inContext } from "./contexts.ts";

export interface Bookmark {
  readonly epoch: number;
  /** Of the process that made it, 8 bytes in hexadecimal: numbers reserved in blocks tell only between runs. */
  readonly run: string;
  /** The last entry of the audit log: its number, and its hash in hexadecimal. */
  readonly auditSeq: number;
  readonly auditHash: string;
  /** The highest lease serial and netmap revision given out. */
  readonly serial: number;
  readonly revision: number;
}

const NONCE_BYTES = 12;
const BODY_BYTES = 4 + 8 + 6 + 32 + 6 + 6;
export const BOOKMARK_BYTES = NONCE_BYTES + BODY_BYTES + 16;
const NOTHING = new Uint8Array(0);

/** The sealing key: the coordinator's signing seed, for this one purpose. */
function keyOf(crypto: Crypto, signSeed: Uint8Array): Uint8Array {
  return crypto.hmac(signSeed, inContext("bookmark"));
}

function writeU48(bytes: Uint8Array, at: number, value: number): void {
  writeU16(bytes, at, Math.floor(value / 2 ** 32));
  writeU32(bytes, at + 2, value % 2 ** 32);
}

function readU48(bytes: Uint8Array, at: number): number {
  return readU16(bytes, at) * 2 ** 32 + readU32(bytes, at + 2);
}

export function sealBookmark(crypto: Crypto, random: Random, signSeed: Uint8Array, mark: Bookmark): Uint8Array {
  const body = new Uint8Array(BODY_BYTES);
  writeU32(body, 0, mark.epoch);
  body.set(fromHex(mark.run)!, 4);
  writeU48(body, 12, mark.auditSeq);
  body.set(fromHex(mark.auditHash)!, 18);
  writeU48(body, 50, mark.serial);
  writeU48(body, 56, mark.revision);
  const nonce = randomBytes(random, NONCE_BYTES);
  return concatBytes(nonce, crypto.sealWithNonce(keyOf(crypto, signSeed), nonce, body, NOTHING));
}

/** Undefined: not one of ours. */
export function openBookmark(crypto: Crypto, signSeed: Uint8Array, sealed: Uint8Array): Bookmark | undefined {
  if (sealed.length !== BOOKMARK_BYTES) return undefined;
  const nonce = sealed.subarray(0, NONCE_BYTES);
  const body = crypto.openWithNonce(keyOf(crypto, signSeed), nonce, sealed.subarray(NONCE_BYTES), NOTHING);
  if (body === undefined) return undefined;
  return {
    epoch: readU32(body, 0),
    run: toHex(body.subarray(4, 12)),
    auditSeq: readU48(body, 12),
    auditHash: toHex(body.subarray(18, 50)),
    serial: readU48(body, 50),
    revision: readU48(body, 56),
  };
}
