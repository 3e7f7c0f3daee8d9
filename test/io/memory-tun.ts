// The twin of a TUN device in memory: a test is the kernel at its other end. One contract suite holds both to the same.
import { assert } from "../../src/base/assert.ts";
import type { PacketDevice, PacketMemory } from "../../src/io/data-plane.ts";
import { EBADF, EINVAL, EIO } from "../../src/io/ffi/errno.ts";
import { VNET_HEADER_BYTES } from "../../src/wire/vnet-header.ts";

const QUEUE_PACKETS_MAX = 500; // TUN_READQ_SIZE, the kernel's own
const VECTORS_MAX = 64;

export class MemoryTun implements PacketDevice {
  readonly name: string;
  readonly offloads: { readonly tso: boolean; readonly uso: boolean };
  /** As `ip link set up` and `down`: a device that is down takes and has no packets. */
  isUp = true;
  readonly #memory: PacketMemory;
  readonly #toRead: Uint8Array[] = [];
  readonly #written: Uint8Array[] = [];
  #isOpen = true;

  constructor(memory: PacketMemory, name: string, { offloads = true }: { offloads?: boolean } = {}) {
    this.#memory = memory;
    this.name = name;
    this.offloads = { tso: offloads, uso: offloads };
  }

  /** There is nothing to poll. */
  get fd(): number {
    return -1;
  }

  /** The kernel sends a packet, by default a whole one. False when the queue is full or the device is down: dropped. */
  kernelSends(packet: Uint8Array, header: Uint8Array = new Uint8Array(VNET_HEADER_BYTES)): boolean {
    assert(header.length === VNET_HEADER_BYTES, "a virtio_net_hdr has 10 bytes");
    if (!this.#isOpen || !this.isUp || this.#toRead.length >= QUEUE_PACKETS_MAX) return false;
    const frame = new Uint8Array(VNET_HEADER_BYTES + packet.length);
    frame.set(header);
    frame.set(packet, VNET_HEADER_BYTES);
    this.#toRead.push(frame);
    return true;
  }

  /** The oldest of what was written, [virtio_net_hdr][packet]. */
  kernelReceives(): Uint8Array | undefined {
    return this.#written.shift();
  }

  /** What `read` would give next is there: what poll(2) would say. */
  get isReadable(): boolean {
    return this.#toRead.length > 0;
  }

  read(at: number, capacity: number): number {
    if (!this.#isOpen) return -EBADF;
    const frame = this.#toRead.shift();
    if (frame === undefined) return 0;
    const bytes = Math.min(frame.length, capacity);
    this.#memory.bytes.set(frame.subarray(0, bytes), at);
    return bytes;
  }

  write(at: number, length: number): number {
    return this.#take(this.#memory.bytes.slice(at, at + length));
  }

  writev(offsets: Int32Array, lengths: Int32Array, count: number): number {
    assert(count > 0 && count <= VECTORS_MAX && lengths[0]! >= VNET_HEADER_BYTES, "1 to 64 pieces, a header first");
    let total = 0;
    for (let i = 0; i < count; i++) total += lengths[i]!;
    const frame = new Uint8Array(total);
    for (let i = 0, to = 0; i < count; to += lengths[i]!, i++) {
      frame.set(this.#memory.bytes.subarray(offsets[i]!, offsets[i]! + lengths[i]!), to);
    }
    return this.#take(frame);
  }

  close(): void {
    this.#isOpen = false;
    this.#toRead.length = 0;
  }

  #take(frame: Uint8Array): number {
    if (!this.#isOpen) return -EBADF;
    if (!this.isUp) return -EIO;
    const version = (frame[VNET_HEADER_BYTES] ?? 0) >>> 4;
    if (version !== 4 && version !== 6) return -EINVAL;
    this.#written.push(frame);
    return frame.length;
  }
}
