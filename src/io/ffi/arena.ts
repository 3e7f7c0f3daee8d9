// Memory that native code may be given the address of: one WebAssembly.Memory that never grows, so it never moves, and
// that this object keeps alive. An address of an ordinary array is good for nothing: the engine may free or move it
// after the call that took it.
import { assert } from "../../base/assert.ts";
import { koffi } from "./koffi.ts";

// Of the engine itself, not of the DOM whose types this project leaves out.
declare const WebAssembly: {
  readonly Memory: new (limits: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer };
};

const PAGE_BYTES = 65_536;
const ALIGNMENT_BYTES = 64;

export class Arena {
  readonly buffer: ArrayBuffer;
  /** Address of the first byte: below 2^53 on every platform that Node runs on. */
  readonly baseAddress: number;
  #used = 0;

  constructor(sizeBytes: number) {
    const pages = Math.ceil(sizeBytes / PAGE_BYTES);
    this.buffer = new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer;
    this.baseAddress = Number(koffi().address(new Uint8Array(this.buffer)));
  }

  /** Zeroed, aligned to 64 bytes, never given back. */
  allocate(sizeBytes: number): Uint8Array {
    const at = this.#used;
    this.#used += Math.ceil(sizeBytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    assert(this.#used <= this.buffer.byteLength, "the arena is large enough for all that is allocated from it");
    return new Uint8Array(this.buffer, at, sizeBytes);
  }

  holds(bytes: Uint8Array): boolean {
    return bytes.buffer === this.buffer;
  }

  /** Of the first byte of an array that this arena holds. */
  addressOf(bytes: Uint8Array): number {
    assert(bytes.buffer === this.buffer, "the array lies in this arena");
    return this.baseAddress + bytes.byteOffset;
  }
}
