// Tokens: `wb_join_<base64url>_<crc32>` carries all that joining needs; other secrets are
// `wb_<kind>_<id>_<secret>_<crc32>`. The checksum tells a typing mistake from a refusal, offline; the fixed prefix lets
// secret scanners find leaked ones.
import { fromBase32, ID_BYTES, toBase32 } from "../base/base32.ts";
import { concatBytes, fromBase64Url, fromUtf8, readU16, toBase64Url, utf8, writeU16 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { TOKEN_MAX_CHARACTERS } from "../base/limits.ts";
import { KEY_BYTES } from "../crypto/provider.ts";

export const JOIN_TOKEN_VERSION = 1;
export const SECRET_BYTES = 32;
const TOKEN_ID = /^t_[0-9a-hjkmnp-tv-z]{16}$/;
const HEADER_BYTES = 1 + 2 + KEY_BYTES + ID_BYTES + SECRET_BYTES; // version, URL length, key, id, secret; then the URL

export interface JoinToken {
  /** `http://HOST:PORT` or `https://HOST[:PORT][/PATH]`. */
  readonly url: string;
  /** The coordinator's Noise static key, pinned by this token. */
  readonly coordinatorKey: Uint8Array;
  /** `t_` and 16 characters. */
  readonly id: string;
  readonly secret: Uint8Array;
}

export type TokenProblem = "empty" | "not-a-token" | "wrong-kind" | "truncated" | "mistyped" | "too-new" | "bad-url";

const PROBLEMS: Record<TokenProblem, readonly [message: string, hint: string]> = {
  empty: ["the token is empty", "give the whole line that `wirebadge token create` printed"],
  "not-a-token": ["this is not a Wirebadge token", "a join token begins with wb_join_"],
  "wrong-kind": [
    "this token is of another kind, not for joining",
    "make one with `wirebadge token create --as KIND:NAME`",
  ],
  truncated: ["the token is cut off", "copy the whole line, from wb_join_ to the 8 characters after the last _"],
  mistyped: ["the token is mistyped: its checksum doesn't match", "copy it again, or make another"],
  "too-new": ["the token was made by a newer coordinator", "upgrade wirebadge on this machine"],
  "bad-url": [
    "the token's coordinator URL is not http:// or https://",
    "make another with a correct --url on the coordinator",
  ],
};

const CRC_TABLE = new Uint32Array(256).map((_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** CRC-32 (ISO 3309, as in zip) over ASCII text, as 8 hexadecimal digits. */
export function checksumOf(text: string): string {
  let value = 0xffffffff;
  for (let i = 0; i < text.length; i++) value = CRC_TABLE[(value ^ text.charCodeAt(i)) & 255]! ^ (value >>> 8);
  return ((value ^ 0xffffffff) >>> 0).toString(16).padStart(8, "0");
}

/** True when a URL may stand in a token: http(s), which always has a host, no credentials, query or fragment. */
export function isCoordinatorUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const url = new URL(text);
  const scheme = url.protocol === "http:" || url.protocol === "https:";
  return scheme && url.username === "" && url.password === "" && url.search === "" && url.hash === "";
}

export function formatJoinToken(token: JoinToken): string {
  const url = utf8(token.url);
  const header = new Uint8Array(3);
  header[0] = JOIN_TOKEN_VERSION;
  writeU16(header, 1, url.length);
  const id = fromBase32(token.id.slice(2))!;
  const body = `wb_join_${toBase64Url(concatBytes(header, token.coordinatorKey, id, token.secret, url))}`;
  return `${body}_${checksumOf(body)}`;
}

/** The token, or what is wrong with the text. Surrounding white space is ignored. */
export function readJoinToken(input: string): JoinToken | TokenProblem {
  const text = input.trim();
  if (text === "") return "empty";
  if (text.length > TOKEN_MAX_CHARACTERS) return "not-a-token";
  if (!text.startsWith("wb_join_")) {
    if (/^wb_[a-z]+_/.test(text)) return "wrong-kind";
    return "wb_join_".startsWith(text) ? "truncated" : "not-a-token";
  }
  const cut = text.lastIndexOf("_");
  const body = text.slice(0, cut);
  const checksum = text.slice(cut + 1);
  if (checksumOf(body) !== checksum) return isCutOff(text) ? "truncated" : "mistyped";
  const bytes = fromBase64Url(body.slice("wb_join_".length));
  if (bytes === undefined) return "mistyped";
  if ((bytes[0] ?? 0) > JOIN_TOKEN_VERSION) return "too-new";
  if (bytes[0] !== JOIN_TOKEN_VERSION) return "mistyped"; // there was no version before it
  if (bytes.length !== HEADER_BYTES + readU16(bytes, 1)) return "mistyped";
  const url = fromUtf8(bytes.subarray(HEADER_BYTES));
  if (url === undefined || !isCoordinatorUrl(url)) return "bad-url";
  const [keyAt, idAt, secretAt] = [3, 3 + KEY_BYTES, 3 + KEY_BYTES + ID_BYTES];
  return {
    url,
    coordinatorKey: bytes.slice(keyAt, idAt),
    id: `t_${toBase32(bytes.subarray(idAt, secretAt))}`,
    secret: bytes.slice(secretAt, HEADER_BYTES),
  };
}

/** The header tells how long the whole is: shorter means cut off rather than mistyped. */
function isCutOff(text: string): boolean {
  const head = text.slice("wb_join_".length, "wb_join_".length + 4); // 4 characters = 3 bytes
  const bytes = fromBase64Url(head);
  if (bytes === undefined || bytes.length < 3) return true;
  const payloadCharacters = Math.ceil(((HEADER_BYTES + readU16(bytes, 1)) * 4) / 3);
  return bytes[0] === JOIN_TOKEN_VERSION && text.length < "wb_join_".length + payloadCharacters + 9;
}

/** Throws TOKEN_INVALID, naming what is wrong; the text itself is in no message. */
export function parseJoinToken(text: string): JoinToken {
  const read = readJoinToken(text);
  if (typeof read !== "string") return read;
  const [message, hint] = PROBLEMS[read];
  throw new WirebadgeError("TOKEN_INVALID", message, { hint });
}

export function isTokenId(text: string): boolean {
  return TOKEN_ID.test(text);
}

/** `wb_admin_<id>_<secret>_<crc32>`: a bearer secret of another kind. */
export function formatSecretToken(kind: string, id: Uint8Array, secret: Uint8Array): string {
  const body = `wb_${kind}_${toBase32(id)}_${toBase32(secret)}`;
  return `${body}_${checksumOf(body)}`;
}

/** True when the text has the form and checksum of such a secret; says nothing about its being accepted anywhere. */
export function isSecretToken(kind: string, text: string): boolean {
  const match = /^(wb_([a-z]+)_[0-9a-z]+_[0-9a-z]+)_([0-9a-f]{8})$/.exec(text);
  return match !== null && match[2] === kind && checksumOf(match[1]!) === match[3];
}
