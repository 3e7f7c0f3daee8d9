// The four WireGuard messages, bytes <-> fields: [WG §5.4.2], [WG §5.4.3], [WG §5.4.7], [WG §5.4.6]. Integers are
// little-endian here. A message is known by its type (with three zero bytes behind it) and its exact length; anything
// else is dropped by name.
import { readU32Le, writeU32Le } from "../base/bytes.ts";

export const INITIATION_BYTES = 148;
export const RESPONSE_BYTES = 92;
export const COOKIE_REPLY_BYTES = 64;
export const DATA_HEADER_BYTES = 16;
export const DATA_TRAILER_BYTES = 16; // the Poly1305 tag
export const DATA_MIN_BYTES = DATA_HEADER_BYTES + DATA_TRAILER_BYTES; // a keepalive

export const TYPE_INITIATION = 1;
export const TYPE_RESPONSE = 2;
export const TYPE_COOKIE_REPLY = 3;
export const TYPE_DATA = 4;

export type MessageType = 1 | 2 | 3 | 4;
export type MalformedReason = "UNKNOWN_TYPE" | "WRONG_LENGTH";

// Field offsets
const SENDER = 4;
const INITIATION_EPHEMERAL = 8;
const INITIATION_STATIC = 40;
const INITIATION_TIMESTAMP = 88;
const RESPONSE_RECEIVER = 8;
const RESPONSE_EPHEMERAL = 12;
const RESPONSE_EMPTY = 44;
const RECEIVER = 4; // of a cookie reply and of data
const COOKIE_NONCE = 8;
const COOKIE_SEALED = 32;
const DATA_COUNTER = 8;
const MAC_BYTES = 16;
const MACS_BYTES = 2 * MAC_BYTES;

/** The type, or why it is none. Looks at the first four bytes and the length only. */
export function classifyMessage(buffer: Uint8Array, offset: number, length: number): MessageType | MalformedReason {
  if (length < 4) return "WRONG_LENGTH";
  switch (readU32Le(buffer, offset)) {
    case TYPE_DATA:
      return length >= DATA_MIN_BYTES ? TYPE_DATA : "WRONG_LENGTH";
    case TYPE_INITIATION:
      return length === INITIATION_BYTES ? TYPE_INITIATION : "WRONG_LENGTH";
    case TYPE_RESPONSE:
      return length === RESPONSE_BYTES ? TYPE_RESPONSE : "WRONG_LENGTH";
    case TYPE_COOKIE_REPLY:
      return length === COOKIE_REPLY_BYTES ? TYPE_COOKIE_REPLY : "WRONG_LENGTH";
    default:
      return "UNKNOWN_TYPE";
  }
}

/**
 * A message's sender or receiver index as a signed 32-bit integer: a small integer of the engine, also as a Map's key.
 */
export function readIndex(buffer: Uint8Array, at: number): number {
  return readU32Le(buffer, at) | 0;
}

export interface Initiation {
  /** The initiator's own index, which the response will carry as receiver. */
  readonly senderIndex: number;
  /** 32 bytes. */
  readonly ephemeral: Uint8Array;
  /** 32 bytes sealed: 48. */
  readonly sealedStatic: Uint8Array;
  /** 12 bytes sealed: 28. */
  readonly sealedTimestamp: Uint8Array;
}

export interface Response {
  readonly senderIndex: number;
  readonly receiverIndex: number;
  readonly ephemeral: Uint8Array;
  /** Nothing, sealed: 16 bytes. */
  readonly sealedEmpty: Uint8Array;
}

export interface CookieReply {
  readonly receiverIndex: number;
  /** 24 bytes. */
  readonly nonce: Uint8Array;
  /** 16 bytes sealed: 32. */
  readonly sealedCookie: Uint8Array;
}

/** Everything but the macs, which stay zero; see `macsOffset`. */
export function encodeInitiation(message: Initiation): Uint8Array {
  const bytes = new Uint8Array(INITIATION_BYTES);
  writeU32Le(bytes, 0, TYPE_INITIATION);
  writeU32Le(bytes, SENDER, message.senderIndex);
  bytes.set(message.ephemeral, INITIATION_EPHEMERAL);
  bytes.set(message.sealedStatic, INITIATION_STATIC);
  bytes.set(message.sealedTimestamp, INITIATION_TIMESTAMP);
  return bytes;
}

/** Views into the buffer, after `classifyMessage` has said TYPE_INITIATION. */
export function decodeInitiation(buffer: Uint8Array, offset: number): Initiation {
  return {
    senderIndex: readIndex(buffer, offset + SENDER),
    ephemeral: buffer.subarray(offset + INITIATION_EPHEMERAL, offset + INITIATION_STATIC),
    sealedStatic: buffer.subarray(offset + INITIATION_STATIC, offset + INITIATION_TIMESTAMP),
    sealedTimestamp: buffer.subarray(offset + INITIATION_TIMESTAMP, offset + INITIATION_BYTES - MACS_BYTES),
  };
}

/** Everything but the macs, which stay zero; see `macsOffset`. */
export function encodeResponse(message: Response): Uint8Array {
  const bytes = new Uint8Array(RESPONSE_BYTES);
  writeU32Le(bytes, 0, TYPE_RESPONSE);
  writeU32Le(bytes, SENDER, message.senderIndex);
  writeU32Le(bytes, RESPONSE_RECEIVER, message.receiverIndex);
  bytes.set(message.ephemeral, RESPONSE_EPHEMERAL);
  bytes.set(message.sealedEmpty, RESPONSE_EMPTY);
  return bytes;
}

/** Views into the buffer, after `classifyMessage` has said TYPE_RESPONSE. */
export function decodeResponse(buffer: Uint8Array, offset: number): Response {
  return {
    senderIndex: readIndex(buffer, offset + SENDER),
    receiverIndex: readIndex(buffer, offset + RESPONSE_RECEIVER),
    ephemeral: buffer.subarray(offset + RESPONSE_EPHEMERAL, offset + RESPONSE_EMPTY),
    sealedEmpty: buffer.subarray(offset + RESPONSE_EMPTY, offset + RESPONSE_BYTES - MACS_BYTES),
  };
}

/** The receiver index alone, after `classifyMessage` has said TYPE_RESPONSE. */
export function readResponseReceiver(buffer: Uint8Array, offset: number): number {
  return readIndex(buffer, offset + RESPONSE_RECEIVER);
}

export function encodeCookieReply(message: CookieReply): Uint8Array {
  const bytes = new Uint8Array(COOKIE_REPLY_BYTES);
  writeU32Le(bytes, 0, TYPE_COOKIE_REPLY);
  writeU32Le(bytes, RECEIVER, message.receiverIndex);
  bytes.set(message.nonce, COOKIE_NONCE);
  bytes.set(message.sealedCookie, COOKIE_SEALED);
  return bytes;
}

/** Views into the buffer, after `classifyMessage` has said TYPE_COOKIE_REPLY. */
export function decodeCookieReply(buffer: Uint8Array, offset: number): CookieReply {
  return {
    receiverIndex: readIndex(buffer, offset + RECEIVER),
    nonce: buffer.subarray(offset + COOKIE_NONCE, offset + COOKIE_SEALED),
    sealedCookie: buffer.subarray(offset + COOKIE_SEALED, offset + COOKIE_REPLY_BYTES),
  };
}

/** Where mac1 begins in an initiation or a response of this length; mac2 follows it. */
export function macsOffset(messageBytes: number): number {
  return messageBytes - MACS_BYTES;
}

/** The 16 bytes before a data message's sealed packet. Counter as two unsigned halves: it passes 2^53. */
export function encodeDataHeader(
  buffer: Uint8Array,
  offset: number,
  receiverIndex: number,
  counterLow: number,
  counterHigh: number,
): void {
  writeU32Le(buffer, offset, TYPE_DATA);
  writeU32Le(buffer, offset + RECEIVER, receiverIndex);
  writeU32Le(buffer, offset + DATA_COUNTER, counterLow);
  writeU32Le(buffer, offset + DATA_COUNTER + 4, counterHigh);
}

export function readDataReceiver(buffer: Uint8Array, offset: number): number {
  return readIndex(buffer, offset + RECEIVER);
}

export function readDataCounterLow(buffer: Uint8Array, offset: number): number {
  return readU32Le(buffer, offset + DATA_COUNTER);
}

export function readDataCounterHigh(buffer: Uint8Array, offset: number): number {
  return readU32Le(buffer, offset + DATA_COUNTER + 4);
}
