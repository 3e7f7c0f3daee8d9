// Memory that native code may be given the address of: one WebAssembly.Memory that never grows, so it never moves, and
// that this object keeps alive. An address of an ordinary array is good for nothing: the engine may free or move it
// after the call that took it.
import { assert } from "../../base/assert.ts";
import { type WasmMemory, webAssembly } from "../web-assembly.ts";
import { koffi } from "./koffi.ts";

const PAGE_BYTES = 65_536;
const ALIGNMENT_BYTES = 64;

export class Arena {
  /** For a module that works on the arena's bytes. */
  readonly memory: WasmMemory;
  readonly buffer: ArrayBuffer;
  /** The whole arena: packets are named by their offset into it, so that none needs a view of its own. */
  readonly bytes: Uint8Array;
  /** The same memory as the native structures of Linux lie in it: little-endian 32-bit words. */
  readonly words: Uint32Array;
  /** Address of the first byte: below 2^53 on every platform that Node runs on. */
  readonly baseAddress: number;
  #used = 0;
  #scratchAt = -1;

  constructor(sizeBytes: number) {
    const pages = Math.ceil(sizeBytes / PAGE_BYTES);
    this.memory = new webAssembly.Memory({ initial: pages, maximum: pages });
    this.buffer = this.memory.buffer;
    this.bytes = new Uint8Array(this.buffer);
    this.words = new Uint32Array(this.buffer);
    this.baseAddress = Number(koffi().address(this.bytes));
  }

  /** Zeroed, aligned to 64 bytes, never given back. */
  allocate(sizeBytes: number): Uint8Array {
    return new Uint8Array(this.buffer, this.allocateAt(sizeBytes), sizeBytes);
  }

  /** Like `allocate`; gives the offset into `bytes`. */
  allocateAt(sizeBytes: number): number {
    const at = this.#used;
    this.#used += Math.ceil(sizeBytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    assert(this.#used <= this.buffer.byteLength, "the arena is large enough for all that is allocated from it");
    return at;
  }

  /** 64 bytes for the arguments of one native call; whoever comes next writes over them. */
  get scratchAt(): number {
    if (this.#scratchAt < 0) this.#scratchAt = this.allocateAt(ALIGNMENT_BYTES);
    return this.#scratchAt;
  }

  /** What `allocate` still has to give. */
  get freeBytes(): number {
    return this.buffer.byteLength - this.#used;
  }

  /** Writes a native pointer (8 bytes, little-endian) to the byte at `target` of this arena. */
  writePointer(at: number, target: number): void {
    const address = this.baseAddress + target;
    this.words[at >>> 2] = address; // modulo 2^32, as every store into a Uint32Array
    this.words[(at >>> 2) + 1] = address / 0x1_0000_0000;
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
