// A Linux TUN device at wire speed (Documentation/networking/tuntap, IFF_VNET_HDR): packets up to 64 KiB in and out of
// the kernel, each behind a virtio_net_hdr that says how it is to be cut or was joined. Non-blocking; needs
// CAP_NET_ADMIN. The device goes away with its file descriptor.
import { assert } from "../../base/assert.ts";
import { utf8 } from "../../base/bytes.ts";
import { WirebadgeError } from "../../base/errors.ts";
import { VNET_HEADER_BYTES } from "../../wire/vnet-header.ts";
import type { PacketDevice } from "../data-plane.ts";
import type { Arena } from "./arena.ts";
import { EACCES, EAGAIN, EBUSY, EINTR, EINVAL, EPERM, errnoName, lastErrno, systemError } from "./errno.ts";
import { bindNative, hasLinuxLayouts, type NativeFunction } from "./koffi.ts";

const O_RDWR_NONBLOCK_CLOEXEC = 2 | 0x800 | 0x80000;
const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const IFREQ_BYTES = 40; // name @0 (16), flags u16 @16
const IFREQ_FLAGS_AT = 16;
const NAME_MAX_BYTES = 15;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const CSUM_TSO = 0x7; // TUN_F_CSUM | TSO4 | TSO6
const CSUM_TSO_USO = 0x67; // and USO4 | USO6, since Linux 6.2
const VECTORS_MAX = 64;
const VECTOR_BYTES = 16; // struct iovec: base @0, len @8

export interface TunOptions {
  /** Takes super-packets and leaves checksums to the other end; default. Else each packet is whole, as on a wire. */
  readonly offloads?: boolean;
  /** False: as on a kernel that has no virtio_net_hdr; then it is made up and left out here. */
  readonly vnetHeader?: boolean;
}

interface Libc {
  readonly open: NativeFunction;
  readonly ioctl: NativeFunction;
  readonly read: NativeFunction;
  readonly write: NativeFunction;
  readonly writev: NativeFunction;
  readonly close: NativeFunction;
}

let libc: Libc | undefined;

function loadLibc(): Libc {
  const at = "uintptr_t";
  return {
    open: bindNative("open", "int", at, "int", "int"),
    ioctl: bindNative("ioctl", "int", "int", "unsigned long", at),
    read: bindNative("read", "long", "int", at, "size_t"),
    write: bindNative("write", "long", "int", at, "size_t"),
    writev: bindNative("writev", "long", "int", at, "int"),
    close: bindNative("close", "int", "int"),
  };
}

/** What one device takes of its arena. */
export const TUN_ARENA_BYTES = VECTORS_MAX * VECTOR_BYTES + 64;

export class TunDevice implements PacketDevice {
  readonly name: string;
  readonly offloads: { readonly tso: boolean; readonly uso: boolean };
  readonly #libc: Libc;
  readonly #arena: Arena;
  readonly #address: number;
  readonly #vectorsAt: number;
  /** Of our header, what the kernel's format lacks: 0, or all 10 bytes. */
  readonly #skippedBytes: number;
  #fd: number;

  private constructor(functions: Libc, arena: Arena, opened: OpenedTun) {
    this.#libc = functions;
    this.#arena = arena;
    this.#address = arena.baseAddress;
    this.#vectorsAt = arena.allocateAt(VECTORS_MAX * VECTOR_BYTES);
    this.#fd = opened.fd;
    this.name = opened.name;
    this.offloads = opened.offloads;
    this.#skippedBytes = opened.hasHeader ? 0 : VNET_HEADER_BYTES;
  }

  /**
   * Makes the device, or takes one that is there and free; "wb%d" lets the kernel choose a number. It is down and has
   * no address yet.
   * @throws WirebadgeError NATIVE_UNAVAILABLE (no TUN, no right to), CONFLICT (the name is taken), CONFIG_INVALID
   */
  static open(arena: Arena, name: string, options: TunOptions = {}): TunDevice {
    const nameBytes = utf8(name);
    if (nameBytes.length === 0 || nameBytes.length > NAME_MAX_BYTES || nameBytes.includes(0)) {
      throw new WirebadgeError("CONFIG_INVALID", `"${name}" can't name an interface: it has 1 to 15 bytes`);
    }
    try {
      if (!hasLinuxLayouts()) throw new Error("only on 64-bit Linux");
      libc ??= loadLibc();
    } catch (cause) {
      throw unavailable("no TUN devices here", "use 64-bit Linux", cause);
    }
    return new TunDevice(libc, arena, openTun(libc, arena, name, options));
  }

  /** The same device in another thread's arena: one of them closes it. */
  static adopt(arena: Arena, opened: OpenedTun): TunDevice {
    libc ??= loadLibc();
    return new TunDevice(libc, arena, opened);
  }

  get fd(): number {
    return this.#fd;
  }

  /** What another thread is to be told of it. */
  get opened(): OpenedTun {
    return { fd: this.#fd, name: this.name, hasHeader: this.#skippedBytes === 0, offloads: this.offloads };
  }

  read(at: number, capacity: number): number {
    const skipped = this.#skippedBytes;
    const count = this.#libc.read(this.#fd, this.#address + at + skipped, capacity - skipped);
    if (count <= 0) return count === 0 ? 0 : noneOrErrno();
    if (skipped > 0) this.#arena.bytes.fill(0, at, at + skipped);
    return count + skipped;
  }

  write(at: number, length: number): number {
    const skipped = this.#skippedBytes;
    const count = this.#libc.write(this.#fd, this.#address + at + skipped, length - skipped);
    return count < 0 ? -lastErrno() : count + skipped;
  }

  writev(offsets: Int32Array, lengths: Int32Array, count: number): number {
    assert(count > 0 && count <= VECTORS_MAX && lengths[0]! >= VNET_HEADER_BYTES, "1 to 64 pieces, a header first");
    const skipped = this.#skippedBytes;
    const arena = this.#arena;
    for (let i = 0, at = this.#vectorsAt; i < count; i++, at += VECTOR_BYTES) {
      const less = i === 0 ? skipped : 0;
      arena.writePointer(at, offsets[i]! + less);
      arena.words[(at >>> 2) + 2] = lengths[i]! - less;
    }
    const written = this.#libc.writev(this.#fd, this.#address + this.#vectorsAt, count);
    return written < 0 ? -lastErrno() : written + skipped;
  }

  close(): void {
    if (this.#fd >= 0) this.#libc.close(this.#fd);
    this.#fd = -1;
  }
}

function noneOrErrno(): number {
  const errno = lastErrno();
  return errno === EAGAIN || errno === EINTR ? 0 : -errno;
}

/** A device that is open; the same for every thread of the process. */
export interface OpenedTun {
  readonly fd: number;
  readonly name: string;
  readonly hasHeader: boolean;
  readonly offloads: { readonly tso: boolean; readonly uso: boolean };
}

function openTun(functions: Libc, arena: Arena, name: string, options: TunOptions): OpenedTun {
  const at = arena.scratchAt;
  arena.bytes.set(utf8("/dev/net/tun\0"), at);
  const fd = functions.open(arena.baseAddress + at, O_RDWR_NONBLOCK_CLOEXEC, 0);
  if (fd < 0) {
    const errno = lastErrno();
    const cause = systemError("open /dev/net/tun", errno);
    const remedy =
      errno === EACCES || errno === EPERM
        ? "run as root, or with CAP_NET_ADMIN and a /dev/net/tun that this user may open"
        : "load the tun module, in a container give it the device";
    throw unavailable(`no TUN devices here (${cause.code})`, remedy, cause);
  }
  try {
    let hasHeader = options.vnetHeader !== false;
    let errno = setInterface(functions, arena, fd, name, hasHeader);
    if (errno === EINVAL && hasHeader) {
      hasHeader = false;
      errno = setInterface(functions, arena, fd, name, false);
    }
    if (errno !== 0) throw refused(name, errno);
    const end = arena.bytes.indexOf(0, at);
    const chosen = new TextDecoder().decode(arena.bytes.slice(at, Math.min(end, at + NAME_MAX_BYTES)));
    let offloads = { tso: false, uso: false };
    if (hasHeader) {
      arena.words[at / 4] = VNET_HEADER_BYTES; // another program may have left a longer one on a device that stays
      if (functions.ioctl(fd, TUNSETVNETHDRSZ, arena.baseAddress + at) < 0) throw refused(name, lastErrno());
      const offers = options.offloads === false ? [] : [CSUM_TSO_USO, CSUM_TSO];
      const taken = offers.find((flags) => functions.ioctl(fd, TUNSETOFFLOAD, flags) === 0);
      // Whole packets, then: every kernel gives those, also on a device that was left with other settings.
      if (taken === undefined && functions.ioctl(fd, TUNSETOFFLOAD, 0) < 0) throw refused(name, lastErrno());
      offloads = { tso: taken !== undefined, uso: taken === CSUM_TSO_USO };
    }
    return { fd, name: chosen, hasHeader, offloads };
  } catch (error) {
    functions.close(fd);
    throw error;
  }
}

/** 0 or errno. Leaves the interface's name at the scratch's beginning. */
function setInterface(functions: Libc, arena: Arena, fd: number, name: string, hasHeader: boolean): number {
  const at = arena.scratchAt;
  arena.bytes.fill(0, at, at + IFREQ_BYTES);
  arena.bytes.set(utf8(name), at);
  arena.words[(at + IFREQ_FLAGS_AT) / 4] = IFF_TUN | IFF_NO_PI | (hasHeader ? IFF_VNET_HDR : 0);
  return functions.ioctl(fd, TUNSETIFF, arena.baseAddress + at) < 0 ? lastErrno() : 0;
}

function refused(name: string, errno: number): WirebadgeError {
  const cause = systemError("ioctl TUNSETIFF", errno);
  if (errno === EBUSY) {
    const hint = "choose another name, or end the program that has it";
    return new WirebadgeError("CONFLICT", `the interface ${name} is in use by another program`, { hint, cause });
  }
  if (errno === EINVAL) {
    const hint = "choose a name that no interface of another kind has";
    return new WirebadgeError("CONFLICT", `${name} can't be a TUN device (EINVAL)`, { hint, cause });
  }
  return unavailable(
    `TUN device ${name} can't be made (${errnoName(errno)})`,
    "run as root or with CAP_NET_ADMIN",
    cause,
  );
}

function unavailable(message: string, remedy: string, cause: unknown): WirebadgeError {
  const hint = `${remedy}, or leave out --tun: without it no root and no device are needed`;
  return new WirebadgeError("NATIVE_UNAVAILABLE", message, { hint, cause });
}
