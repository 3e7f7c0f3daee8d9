// Many datagrams by one system call (recvmmsg, Linux): what waits behind the one that woke the loop. Of a datagram that
// dgram delivers most of the cost is the object, the text and the call-back that come with it; here there are none.
import { endianness } from "node:os";
import { type Endpoint, makeAddress, makeV4 } from "../../base/address.ts";
import { readU16, readU32, readU32Le, writeU32Le } from "../../base/bytes.ts";
import { DATAGRAM_MAX_BYTES } from "../../base/limits.ts";
import { Arena } from "./arena.ts";
import { koffi } from "./koffi.ts";

export const DRAIN_BATCH = 64;
const MSG_DONTWAIT = 0x40;
const MSG_TRUNC = 0x20;
const AF_INET = 2;
const NAME_BYTES = 28; // sockaddr_in6, the longer one
const VECTOR_BYTES = 16;
// struct mmsghdr, 64-bit: msg_name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48, msg_len 56
const HEADER_BYTES = 64;
const NAME_LENGTH_AT = 8;
const FLAGS_AT = 48;
const LENGTH_AT = 56;

interface Libc {
  recvmmsg(fd: number, headers: number, count: number, flags: number, timeout: number): number;
}

let libc: Libc | undefined;

export class UdpDrain {
  readonly #libc: Libc;
  readonly #headers: Uint8Array;
  readonly #headersAddress: number;
  readonly #names: Uint8Array;
  readonly #data: Uint8Array;
  readonly #bytes: readonly Uint8Array[];
  #last: Endpoint | undefined;
  /** Dropped, longer than DATAGRAM_MAX_BYTES: so many since the reader last set it to 0. */
  tooLong = 0;

  private constructor(functions: Libc) {
    this.#libc = functions;
    const arena = new Arena(DRAIN_BATCH * (DATAGRAM_MAX_BYTES + NAME_BYTES + VECTOR_BYTES + HEADER_BYTES) + 4 * 64);
    this.#headers = arena.allocate(DRAIN_BATCH * HEADER_BYTES);
    this.#headersAddress = arena.addressOf(this.#headers);
    this.#names = arena.allocate(DRAIN_BATCH * NAME_BYTES);
    const vectors = arena.allocate(DRAIN_BATCH * VECTOR_BYTES);
    this.#data = arena.allocate(DRAIN_BATCH * DATAGRAM_MAX_BYTES);
    const headers = new DataView(arena.buffer, this.#headers.byteOffset);
    const view = new DataView(arena.buffer, vectors.byteOffset);
    for (let i = 0; i < DRAIN_BATCH; i++) {
      headers.setBigUint64(i * HEADER_BYTES, BigInt(arena.addressOf(this.#names) + i * NAME_BYTES), true);
      headers.setBigUint64(i * HEADER_BYTES + 16, BigInt(arena.addressOf(vectors) + i * VECTOR_BYTES), true);
      headers.setBigUint64(i * HEADER_BYTES + 24, 1n, true);
      view.setBigUint64(i * VECTOR_BYTES, BigInt(arena.addressOf(this.#data) + i * DATAGRAM_MAX_BYTES), true);
      view.setBigUint64(i * VECTOR_BYTES + 8, BigInt(DATAGRAM_MAX_BYTES), true);
    }
    this.#bytes = Array.from({ length: DRAIN_BATCH }, (_, i) => this.#data.subarray(i * DATAGRAM_MAX_BYTES));
  }

  /** Undefined where there is no such call: dgram alone does as well. */
  static open(): UdpDrain | undefined {
    if (process.platform !== "linux" || endianness() !== "LE" || !["x64", "arm64"].includes(process.arch)) return;
    try {
      libc ??= {
        recvmmsg: koffi()
          .load(null)
          .func("int recvmmsg(int fd, uintptr_t headers, unsigned int count, int flags, uintptr_t timeout)"),
      };
      return new UdpDrain(libc);
    } catch {
      return undefined; // no FFI here
    }
  }

  /**
   * Up to DRAIN_BATCH of what waits at this socket, each given to the handler; the bytes are valid during its call
   * only. Gives how many they were.
   */
  read(fd: number, handler: (from: Endpoint, bytes: Uint8Array) => void): number {
    const headers = this.#headers;
    for (let at = NAME_LENGTH_AT; at < headers.length; at += HEADER_BYTES) writeU32Le(headers, at, NAME_BYTES);
    const count = this.#libc.recvmmsg(fd, this.#headersAddress, DRAIN_BATCH, MSG_DONTWAIT, 0);
    for (let i = 0; i < count; i++) {
      const at = i * HEADER_BYTES;
      if ((readU32Le(headers, at + FLAGS_AT) & MSG_TRUNC) !== 0) this.tooLong++;
      else handler(this.#source(i * NAME_BYTES), this.#bytes[i]!.subarray(0, readU32Le(headers, at + LENGTH_AT)));
    }
    return Math.max(0, count);
  }

  /** struct sockaddr_in or sockaddr_in6; the same object again for the same sender. */
  #source(at: number): Endpoint {
    const names = this.#names;
    const port = readU16(names, at + 2);
    const isV4 = names[at] === AF_INET;
    const w3 = readU32(names, at + (isV4 ? 4 : 20));
    const w2 = isV4 ? 0xffff : readU32(names, at + 16);
    const w1 = isV4 ? 0 : readU32(names, at + 12);
    const w0 = isV4 ? 0 : readU32(names, at + 8);
    const last = this.#last;
    if (last !== undefined && last.port === port && last.address.w3 === w3) {
      if (last.address.w2 === w2 && last.address.w1 === w1 && last.address.w0 === w0) return last;
    }
    this.#last = { address: isV4 ? makeV4(w3) : makeAddress(w0, w1, w2, w3), port };
    return this.#last;
  }
}
