// poll(2) over a fixed set of file descriptors: where the packet thread waits for whichever comes first. It blocks the
// thread: no timer, promise or message event runs meanwhile, and `process.exit()` waits for it as well, so waits are
// short and an EventFd is in the set.
import { assert } from "../../base/assert.ts";
import { WirebadgeError } from "../../base/errors.ts";
import type { Arena } from "./arena.ts";
import { EINTR, errnoName, lastErrno, systemError } from "./errno.ts";
import { bindNative, type NativeFunction } from "./koffi.ts";

export const POLLIN = 1;
export const POLLOUT = 4;
export const POLLERR = 8;
export const POLLHUP = 16;
export const POLLNVAL = 32;

// struct pollfd: fd i32 @0, events i16 @4, revents i16 @6
export const POLLFD_BYTES = 8;

export class Poller {
  readonly #poll: NativeFunction;
  readonly #words: Uint32Array;
  readonly #word: number;
  readonly #address: number;
  readonly #count: number;
  readonly #longestMs: number;

  /** Waits for POLLIN of each; errors and hang-ups are always told. A negative descriptor is never ready. */
  constructor(arena: Arena, fds: readonly number[], longestMs = Number.POSITIVE_INFINITY) {
    this.#poll = bindNative("poll", "int", "uintptr_t", "unsigned long", "int");
    const at = arena.allocateAt(fds.length * POLLFD_BYTES);
    this.#words = arena.words;
    this.#word = at >>> 2;
    this.#address = arena.baseAddress + at;
    this.#count = fds.length;
    this.#longestMs = longestMs;
    for (const [i, fd] of fds.entries()) {
      this.#words[this.#word + 2 * i] = fd;
      this.#words[this.#word + 2 * i + 1] = POLLIN;
    }
  }

  /**
   * How many are ready, after at most `timeoutMs` (whole milliseconds; less than none waits for ever). 0: none in that
   * time, or a signal came.
   * @throws WirebadgeError INTERNAL
   */
  wait(timeoutMs: number): number {
    const ready = this.#poll(this.#address, this.#count, Math.min(timeoutMs, this.#longestMs));
    if (ready >= 0) return ready;
    const errno = lastErrno();
    if (errno === EINTR) return 0;
    throw new WirebadgeError("INTERNAL", `poll failed (${errnoName(errno)})`, { cause: systemError("poll", errno) });
  }

  /** Of the descriptor at index `i`, as the last `wait` found it: POLLIN | POLLERR | …; 0: none. */
  events(i: number): number {
    assert(i >= 0 && i < this.#count, "a descriptor of this set");
    return this.#words[this.#word + 2 * i + 1]! >>> 16;
  }
}
