// A counter of the kernel that poll(2) can wait for (eventfd(2)): how another thread wakes one that is blocked in a
// native call, where no message event would run.
import { assert } from "../../base/assert.ts";
import { WirebadgeError } from "../../base/errors.ts";
import { Arena } from "./arena.ts";
import { EAGAIN, lastErrno, systemError } from "./errno.ts";
import { bindNative, hasLinuxLayouts, type NativeFunction } from "./koffi.ts";

const EFD_NONBLOCK = 0x800;
const EFD_CLOEXEC = 0x80000;

interface Libc {
  readonly eventfd: NativeFunction;
  readonly write: NativeFunction;
  readonly read: NativeFunction;
  readonly close: NativeFunction;
  /** Where the kernel writes the counter that a read takes. */
  readonly countAt: number;
  readonly arena: Arena; // keeps that place alive
}

let libc: Libc | undefined;

function loadLibc(): Libc {
  const arena = new Arena(8);
  return {
    eventfd: bindNative("eventfd", "int", "uint32_t", "int"),
    write: bindNative("eventfd_write", "int", "int", "uint64_t"),
    read: bindNative("eventfd_read", "int", "int", "uintptr_t"),
    close: bindNative("close", "int", "int"),
    countAt: arena.baseAddress,
    arena,
  };
}

export class EventFd {
  readonly #libc: Libc;
  readonly #isOwner: boolean;
  #fd: number;

  private constructor(functions: Libc, fd: number, isOwner: boolean) {
    this.#libc = functions;
    this.#fd = fd;
    this.#isOwner = isOwner;
  }

  /** @throws WirebadgeError NATIVE_UNAVAILABLE */
  static create(): EventFd {
    try {
      if (!hasLinuxLayouts()) throw new Error("only on 64-bit Linux");
      libc ??= loadLibc();
      const fd = libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
      if (fd < 0) throw systemError("eventfd", lastErrno());
      return new EventFd(libc, fd, true);
    } catch (cause) {
      const hint = "leave out --tun: the rootless driver needs no native calls";
      throw new WirebadgeError("NATIVE_UNAVAILABLE", "no eventfd here to wake the packet thread by", { hint, cause });
    }
  }

  /** The same one in another thread. It must be done with it before the creator closes it. */
  static of(fd: number): EventFd {
    libc ??= loadLibc();
    return new EventFd(libc, fd, false);
  }

  /** -1 once closed. */
  get fd(): number {
    return this.#fd;
  }

  /** Makes it readable until the next `drain`; signals do not queue. Nothing once closed. */
  signal(): void {
    if (this.#fd < 0) return;
    if (this.#libc.write(this.#fd, 1) === 0) return;
    const errno = lastErrno();
    assert(errno === EAGAIN, `an event can be signalled: ${systemError("eventfd_write", errno).message}`);
  }

  /** Takes all signals so far; nothing when there were none. */
  drain(): void {
    if (this.#fd < 0) return;
    if (this.#libc.read(this.#fd, this.#libc.countAt) === 0) return;
    const errno = lastErrno();
    assert(errno === EAGAIN, `an event can be drained: ${systemError("eventfd_read", errno).message}`);
  }

  /** The descriptor itself goes with its creator's `close` only. */
  close(): void {
    if (this.#fd >= 0 && this.#isOwner) this.#libc.close(this.#fd);
    this.#fd = -1;
  }
}
