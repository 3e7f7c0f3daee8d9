// Packets that wait for a tunnel's first session, the newest STAGED_PACKETS_MAX of them, each in a buffer of its own
// with the room that sealing needs around it.
import { STAGED_PACKETS_MAX } from "../base/limits.ts";
import { Ring } from "../base/ring.ts";
import { DATA_HEADER_BYTES, DATA_TRAILER_BYTES } from "../wire/wireguard.ts";

export const PADDING_BYTES = 16;
/** Around a staged packet, of which DATA_HEADER_BYTES before it. */
export const STAGED_ROOM_BYTES = DATA_HEADER_BYTES + PADDING_BYTES + DATA_TRAILER_BYTES;

export class StagedPackets {
  /** An idle tunnel holds no ring. */
  #ring: Ring<Uint8Array> | undefined;

  get size(): number {
    return this.#ring?.size ?? 0;
  }

  /** A copy. False: the oldest had to go, the newest are the ones still waited for. */
  push(buffer: Uint8Array, offset: number, length: number): boolean {
    this.#ring ??= new Ring<Uint8Array>(STAGED_PACKETS_MAX);
    const hadRoom = this.#ring.size < this.#ring.capacity;
    if (!hadRoom) this.#ring.shift();
    const copy = new Uint8Array(length + STAGED_ROOM_BYTES);
    copy.set(buffer.subarray(offset, offset + length), DATA_HEADER_BYTES);
    this.#ring.push(copy);
    return hadRoom;
  }

  /** The oldest, at DATA_HEADER_BYTES in a buffer longer by STAGED_ROOM_BYTES. */
  shift(): Uint8Array | undefined {
    const packet = this.#ring?.shift();
    if (packet === undefined) this.#ring = undefined;
    return packet;
  }

  /** How many there were. */
  clear(): number {
    const { size } = this;
    this.#ring = undefined;
    return size;
  }
}
