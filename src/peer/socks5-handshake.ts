// The server's half of a SOCKS5 handshake as a plain state machine: RFC 1928 (CONNECT alone), RFC 1929 (user name and
// password). Fed with what came, it says what to answer and, in the end, where to connect. Every message has its own
// bound; nothing is guessed.

import type { Address, Endpoint } from "../base/address.ts";
import { addressFromBytes, addressToBytes, formatAddress } from "../base/address.ts";
import { concatBytes, equalBytes, readU16, utf8, writeU16 } from "../base/bytes.ts";
import type { DialFailure, DialTarget } from "./overlay.ts";

const VERSION = 5;
const METHOD_NONE = 0;
const METHOD_PASSWORD = 2;
const METHOD_NO_ACCEPTABLE = 0xff;
const PASSWORD_VERSION = 1;
const COMMAND_CONNECT = 1;
const TYPE_V4 = 1;
const TYPE_NAME = 3;
const TYPE_V6 = 4;

export const SOCKS5_SUCCEEDED = 0;
export const SOCKS5_GENERAL_FAILURE = 1;
export const SOCKS5_NOT_ALLOWED = 2;
export const SOCKS5_HOST_UNREACHABLE = 4;
export const SOCKS5_REFUSED = 5;
export const SOCKS5_COMMAND_NOT_SUPPORTED = 7;
export const SOCKS5_ADDRESS_TYPE_NOT_SUPPORTED = 8;

/** Denied and unknown are one reply: what this peer may not know of looks like what doesn't exist. */
export const SOCKS5_REPLIES: Readonly<Record<DialFailure, number>> = {
  denied: SOCKS5_NOT_ALLOWED,
  refused: SOCKS5_REFUSED,
  unreachable: SOCKS5_HOST_UNREACHABLE,
  unresolved: SOCKS5_HOST_UNREACHABLE,
  timeout: SOCKS5_HOST_UNREACHABLE,
  aborted: SOCKS5_GENERAL_FAILURE,
};

export interface Socks5Credentials {
  readonly user: string;
  readonly password: string;
}

export type Socks5Step =
  | { readonly kind: "reply"; readonly bytes: Uint8Array }
  /** Answer with these bytes (there may be none), then close. */
  | { readonly kind: "fail"; readonly bytes: Uint8Array; readonly reason: Socks5Failure }
  /** `rest`: what the client has sent beyond its request. */
  | { readonly kind: "connect"; readonly target: DialTarget; readonly rest: Uint8Array };

export type Socks5Failure =
  | "not-socks5"
  | "no-method"
  | "bad-credentials"
  | "bad-request"
  | "command-not-supported"
  | "address-type-not-supported";

/** RFC 1928 §6. BND.ADDR and BND.PORT are zero in every failure, so that two failures of one code are equal bytes. */
export function encodeSocks5Reply(code: number, bound?: Endpoint): Uint8Array {
  const address = bound === undefined ? new Uint8Array(4) : addressToBytes(bound.address);
  const reply = new Uint8Array(4 + address.length + 2);
  reply.set([VERSION, code, 0, address.length === 4 ? TYPE_V4 : TYPE_V6]);
  reply.set(address, 4);
  writeU16(reply, 4 + address.length, bound?.port ?? 0);
  return reply;
}

const NOTHING = new Uint8Array(0);

/** One client's handshake. Push what came, then call `next` until it gives undefined. */
export class Socks5Handshake {
  readonly #credentials: Socks5Credentials | undefined;
  #state: "greeting" | "password" | "request" | "done" = "greeting";
  #bytes: Uint8Array = NOTHING;

  constructor(credentials: Socks5Credentials | undefined) {
    this.#credentials = credentials;
  }

  push(bytes: Uint8Array): void {
    this.#bytes = this.#bytes.length === 0 ? bytes : concatBytes(this.#bytes, bytes);
  }

  /** Undefined: more bytes are needed, or the handshake is over. */
  next(): Socks5Step | undefined {
    switch (this.#state) {
      case "greeting":
        return this.#greeting();
      case "password":
        return this.#password();
      case "request":
        return this.#request();
      case "done":
        return undefined;
    }
  }

  #take(count: number): void {
    this.#bytes = this.#bytes.subarray(count);
  }

  #fail(reason: Socks5Failure, bytes: Uint8Array = NOTHING): Socks5Step {
    this.#state = "done";
    this.#bytes = NOTHING;
    return { kind: "fail", bytes, reason };
  }

  #failRequest(reason: Socks5Failure, code: number): Socks5Step {
    return this.#fail(reason, encodeSocks5Reply(code));
  }

  /** VER | NMETHODS | METHODS (RFC 1928 §3) */
  #greeting(): Socks5Step | undefined {
    const bytes = this.#bytes;
    if (bytes.length > 0 && bytes[0] !== VERSION) return this.#fail("not-socks5");
    if (bytes.length < 2 || bytes.length < 2 + bytes[1]!) return undefined;
    const wanted = this.#credentials === undefined ? METHOD_NONE : METHOD_PASSWORD;
    const offered = bytes.subarray(2, 2 + bytes[1]!).includes(wanted);
    if (!offered) return this.#fail("no-method", Uint8Array.of(VERSION, METHOD_NO_ACCEPTABLE));
    this.#take(2 + bytes[1]!);
    this.#state = wanted === METHOD_NONE ? "request" : "password";
    return { kind: "reply", bytes: Uint8Array.of(VERSION, wanted) };
  }

  /** VER | ULEN | UNAME | PLEN | PASSWD (RFC 1929 §2) */
  #password(): Socks5Step | undefined {
    const bytes = this.#bytes;
    if (bytes.length > 0 && bytes[0] !== PASSWORD_VERSION) return this.#fail("bad-credentials");
    if (bytes.length < 2) return undefined;
    const userEnd = 2 + bytes[1]!;
    if (bytes.length < userEnd + 1) return undefined;
    const end = userEnd + 1 + bytes[userEnd]!;
    if (bytes.length < end) return undefined;
    const { user, password } = this.#credentials!;
    const userMatches = equalBytes(bytes.subarray(2, userEnd), utf8(user)); // both are always compared
    const passwordMatches = equalBytes(bytes.subarray(userEnd + 1, end), utf8(password));
    if (!(userMatches && passwordMatches)) return this.#fail("bad-credentials", Uint8Array.of(PASSWORD_VERSION, 1));
    this.#take(end);
    this.#state = "request";
    return { kind: "reply", bytes: Uint8Array.of(PASSWORD_VERSION, 0) };
  }

  /** VER | CMD | RSV | ATYP | DST.ADDR | DST.PORT (RFC 1928 §4) */
  #request(): Socks5Step | undefined {
    const bytes = this.#bytes;
    if (bytes.length > 0 && bytes[0] !== VERSION) return this.#fail("bad-request");
    if (bytes.length < 5) return undefined; // the fifth byte is a name's length
    const type = bytes[3]!;
    if (type !== TYPE_V4 && type !== TYPE_V6 && type !== TYPE_NAME) {
      return this.#failRequest("address-type-not-supported", SOCKS5_ADDRESS_TYPE_NOT_SUPPORTED);
    }
    const addressAt = type === TYPE_NAME ? 5 : 4;
    const addressEnd = addressAt + (type === TYPE_V4 ? 4 : type === TYPE_V6 ? 16 : bytes[4]!);
    if (bytes.length < addressEnd + 2) return undefined;
    if (bytes[1] !== COMMAND_CONNECT) {
      return this.#failRequest("command-not-supported", SOCKS5_COMMAND_NOT_SUPPORTED);
    }
    const port = readU16(bytes, addressEnd);
    if (bytes[2] !== 0 || port === 0 || addressEnd === addressAt) {
      return this.#failRequest("bad-request", SOCKS5_GENERAL_FAILURE);
    }
    const host =
      type === TYPE_NAME
        ? String.fromCharCode(...bytes.subarray(addressAt, addressEnd))
        : formatAddress(addressOf(bytes, addressAt, type));
    this.#state = "done";
    this.#bytes = NOTHING;
    return { kind: "connect", target: { host, port }, rest: bytes.slice(addressEnd + 2) };
  }
}

function addressOf(bytes: Uint8Array, at: number, type: number): Address {
  return addressFromBytes(bytes, at, type === TYPE_V4 ? 4 : 16);
}
