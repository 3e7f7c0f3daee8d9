// Name-dial: how a name reaches the gateway of a `host:` route unresolved. Over TCP to the gateway's overlay IPv6
// address, reserved port 51822: one request, one answer, then the stream itself. Both ends of the codec; nobody reads
// one byte too many.
//   request  version u8 = 1 | port u16 | name bytes u8 | name (ASCII, lower case)
//   answer   version u8 = 1 | status u8 | denial id bytes u8 | denial id (ASCII)
import { readU16, writeU16 } from "../base/bytes.ts";
import { parseHostName } from "./host-name.ts";

export const NAME_DIAL_VERSION = 1;

const REQUEST_HEAD_BYTES = 4;
const ANSWER_HEAD_BYTES = 3;
const DENIAL_ID = /^[A-Za-z0-9_]{0,32}$/;

const STATUSES = ["connected", "denied", "refused", "unreachable", "unresolved", "timeout", "bad-request"] as const;
export type NameDialStatus = (typeof STATUSES)[number];

export interface NameDialRequest {
  readonly name: string;
  readonly port: number;
}

export interface NameDialAnswer {
  readonly status: NameDialStatus;
  /** Of the gateway's record of a denial. */
  readonly denialId: string | undefined;
}

/** `name` must have passed parseHostName. */
export function encodeNameDialRequest(request: NameDialRequest): Uint8Array {
  const bytes = new Uint8Array(REQUEST_HEAD_BYTES + request.name.length);
  bytes[0] = NAME_DIAL_VERSION;
  writeU16(bytes, 1, request.port);
  bytes[3] = request.name.length;
  for (let i = 0; i < request.name.length; i++) bytes[REQUEST_HEAD_BYTES + i] = request.name.charCodeAt(i);
  return bytes;
}

export function encodeNameDialAnswer(answer: NameDialAnswer): Uint8Array {
  const id = answer.denialId ?? "";
  const bytes = new Uint8Array(ANSWER_HEAD_BYTES + id.length);
  bytes[0] = NAME_DIAL_VERSION;
  bytes[1] = STATUSES.indexOf(answer.status);
  bytes[2] = id.length;
  for (let i = 0; i < id.length; i++) bytes[ANSWER_HEAD_BYTES + i] = id.charCodeAt(i);
  return bytes;
}

/**
 * Collects one message of a stream, asking for no more than its own bytes: its head, whose last byte says how many
 * follow. `want` is how many it still needs; 0: complete; feed it at most that. Bounded by construction.
 */
class Collector {
  readonly #headBytes: number;
  #bytes: Uint8Array;
  #length = 0;

  constructor(headBytes: number) {
    this.#headBytes = headBytes;
    this.#bytes = new Uint8Array(headBytes + 255);
  }

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  get want(): number {
    return this.#headBytes + this.#bytes[this.#headBytes - 1]! - this.#length; // 0 until it is there
  }

  add(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }
}

export class NameDialRequestReader {
  readonly #collector = new Collector(REQUEST_HEAD_BYTES);

  get want(): number {
    return this.#collector.want;
  }

  add(bytes: Uint8Array): void {
    this.#collector.add(bytes);
  }

  /** Once `want` is 0. Undefined: not a request. */
  result(): NameDialRequest | undefined {
    const bytes = this.#collector.bytes;
    if (bytes[0] !== NAME_DIAL_VERSION) return undefined;
    const port = readU16(bytes, 1);
    const text = String.fromCharCode(...bytes.subarray(REQUEST_HEAD_BYTES));
    const name = parseHostName(text);
    return port === 0 || name === undefined || name !== text ? undefined : { name, port };
  }
}

export class NameDialAnswerReader {
  readonly #collector = new Collector(ANSWER_HEAD_BYTES);

  get want(): number {
    return this.#collector.want;
  }

  add(bytes: Uint8Array): void {
    this.#collector.add(bytes);
  }

  /** Once `want` is 0. Undefined: not an answer. */
  result(): NameDialAnswer | undefined {
    const bytes = this.#collector.bytes;
    const status = STATUSES[bytes[1]!];
    if (bytes[0] !== NAME_DIAL_VERSION || status === undefined) return undefined;
    const id = String.fromCharCode(...bytes.subarray(ANSWER_HEAD_BYTES));
    if (!DENIAL_ID.test(id)) return undefined;
    return { status, denialId: id === "" ? undefined : id };
  }
}
