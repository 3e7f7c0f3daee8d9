// A TUN device for tests that speak whole packets, one at a time: the product's own device without offloads, and its
// vnet header put on and taken off.
import { Arena } from "../../src/io/ffi/arena.ts";
import { TUN_ARENA_BYTES, TunDevice } from "../../src/io/ffi/tun-device.ts";
import { VNET_HEADER_BYTES, writePlainVnetHeader } from "../../src/wire/vnet-header.ts";

const FRAME_BYTES = VNET_HEADER_BYTES + 65_536;

export class PlainTun {
  readonly #arena = new Arena(TUN_ARENA_BYTES + FRAME_BYTES + 256);
  readonly #device: TunDevice;
  readonly #at: number;

  private constructor(name: string) {
    this.#device = TunDevice.open(this.#arena, name, { offloads: false });
    this.#at = this.#arena.allocateAt(FRAME_BYTES);
  }

  /** Makes the device: down, without an address. */
  static open(name: string): PlainTun {
    return new PlainTun(name);
  }

  /** One packet from the kernel into `bytes`; its length, 0 when none is waiting. */
  read(bytes: Uint8Array): number {
    const count = this.#device.read(this.#at, VNET_HEADER_BYTES + bytes.length) - VNET_HEADER_BYTES;
    if (count <= 0) return 0;
    const from = this.#at + VNET_HEADER_BYTES;
    bytes.set(this.#arena.bytes.subarray(from, from + count));
    return count;
  }

  /** One packet to the kernel. False when it did not take it: it is lost, as on any link. */
  write(bytes: Uint8Array): boolean {
    writePlainVnetHeader(this.#arena.bytes, this.#at);
    this.#arena.bytes.set(bytes, this.#at + VNET_HEADER_BYTES);
    const length = VNET_HEADER_BYTES + bytes.length;
    return this.#device.write(this.#at, length) === length;
  }

  close(): void {
    this.#device.close();
  }
}
