// A Linux TUN device: IP packets in and out of the kernel (Documentation/networking/tuntap). Non-blocking; the caller
// decides when to look. Needs CAP_NET_ADMIN. The device goes away with its file descriptor.
import { closeSync, constants, openSync } from "node:fs";
import { assert } from "../../base/assert.ts";
import { utf8 } from "../../base/bytes.ts";
import { WirebadgeError } from "../../base/errors.ts";
import { koffi } from "./koffi.ts";

const TUNSETIFF = 0x400454ca;
const IFREQ_BYTES = 40;
const IFREQ_FLAGS_AT = 16;
const NAME_MAX_BYTES = 15;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;

interface Libc {
  ioctl(fd: number, request: number, argument: Uint8Array): number;
  read(fd: number, bytes: Uint8Array, length: number): number;
  write(fd: number, bytes: Uint8Array, length: number): number;
}

let libc: Libc | undefined;

function loadLibc(): Libc {
  const library = koffi().load(null);
  return {
    ioctl: library.func("int ioctl(int fd, unsigned long request, _Inout_ void *argument)"),
    read: library.func("long read(int fd, _Out_ void *bytes, size_t length)"),
    write: library.func("long write(int fd, const void *bytes, size_t length)"),
  };
}

export class Tun {
  readonly name: string;
  readonly fd: number;
  readonly #libc: Libc;
  #isOpen = true;

  private constructor(name: string, fd: number, functions: Libc) {
    this.name = name;
    this.fd = fd;
    this.#libc = functions;
  }

  /**
   * Makes the device, or takes one that is there and free. It is down and has no address yet.
   * @throws WirebadgeError NATIVE_UNAVAILABLE
   */
  static open(name: string): Tun {
    const nameBytes = utf8(name);
    assert(nameBytes.length > 0 && nameBytes.length <= NAME_MAX_BYTES, "an interface name has 1 to 15 bytes");
    let fd: number;
    try {
      libc ??= loadLibc();
      fd = openSync("/dev/net/tun", constants.O_RDWR | constants.O_NONBLOCK);
    } catch (cause) {
      const hint = "load the tun module and, in a container, give it /dev/net/tun";
      throw new WirebadgeError("NATIVE_UNAVAILABLE", "no TUN devices here", { hint, cause });
    }
    const request = new Uint8Array(IFREQ_BYTES);
    request.set(nameBytes);
    new DataView(request.buffer).setUint16(IFREQ_FLAGS_AT, IFF_TUN | IFF_NO_PI, true);
    if (libc.ioctl(fd, TUNSETIFF, request) < 0) {
      const code = koffi().errno();
      closeSync(fd);
      const hint = "CAP_NET_ADMIN is needed, and a name that no other program uses";
      throw new WirebadgeError("NATIVE_UNAVAILABLE", `TUN device ${name} can't be made (errno ${code})`, { hint });
    }
    return new Tun(name, fd, libc);
  }

  /** One packet from the kernel into `bytes`; returns its length, 0 when none is waiting. */
  read(bytes: Uint8Array): number {
    return Math.max(0, this.#libc.read(this.fd, bytes, bytes.length));
  }

  /** One packet to the kernel. False when it did not take it (queue full, device down): it is lost, as on any link. */
  write(bytes: Uint8Array): boolean {
    return this.#libc.write(this.fd, bytes, bytes.length) === bytes.length;
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeSync(this.fd);
  }
}
