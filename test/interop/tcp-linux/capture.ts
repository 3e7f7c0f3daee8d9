// What passes one end of the wire, as a capture file that tshark reads: libpcap's format, raw IP packets, whole.
import { closeSync, openSync, writeSync } from "node:fs";

const MAGIC = 0xa1b2c3d4;
const LINKTYPE_RAW = 101;
const SNAP_BYTES = 65_535;
const FLUSH_BYTES = 1 << 20;

export class Capture {
  readonly #fd: number;
  #parts: Uint8Array[] = [];
  #heldBytes = 0;
  frames = 0;

  constructor(path: string) {
    this.#fd = openSync(path, "w");
    const header = new DataView(new ArrayBuffer(24));
    header.setUint32(0, MAGIC, true);
    header.setUint16(4, 2, true);
    header.setUint16(6, 4, true);
    header.setUint32(16, SNAP_BYTES, true);
    header.setUint32(20, LINKTYPE_RAW, true);
    this.#hold(new Uint8Array(header.buffer));
  }

  /** Copies the packet. */
  write(nowMs: number, bytes: Uint8Array): void {
    this.frames++;
    const record = new Uint8Array(16 + bytes.length);
    const view = new DataView(record.buffer);
    view.setUint32(0, Math.floor(nowMs / 1_000), true);
    view.setUint32(4, Math.floor((nowMs % 1_000) * 1_000), true);
    view.setUint32(8, bytes.length, true);
    view.setUint32(12, bytes.length, true);
    record.set(bytes, 16);
    this.#hold(record);
  }

  #hold(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.#heldBytes += bytes.length;
    if (this.#heldBytes >= FLUSH_BYTES) this.#flush();
  }

  #flush(): void {
    writeSync(this.#fd, Buffer.concat(this.#parts));
    this.#parts = [];
    this.#heldBytes = 0;
  }

  close(): void {
    this.#flush();
    closeSync(this.#fd);
  }
}
