// When a file descriptor of ours can be read, told in Node's own event loop (uv_poll, by koffi): the loop sleeps in one
// epoll for this and for all that is Node's. koffi's call-back runs outside of what Node wraps around its own: no
// promise is settled and no error reported behind it, so that the work is put off to the same round's immediates.
import { clearTimeout, setImmediate, setTimeout } from "node:timers";
import { koffi } from "./koffi.ts";

export interface PollHandle {
  start(onEvent: (status: number) => void): void;
  stop(): void;
  unref(): void;
  close(): void;
}

export type StartPoll = (fd: number, onEvent: (status: number) => void) => PollHandle;

const REST_MS = 10; // no busy loop where it fails on and on

// Its types leave out that the status comes first.
const pollByKoffi = (fd: number, onEvent: (status: number) => void): PollHandle =>
  koffi().node.poll(fd, onEvent as () => void) as unknown as PollHandle;

export class Readiness {
  readonly #onReadable: () => boolean;
  readonly #handle: PollHandle;
  #rest: NodeJS.Timeout | undefined;
  #isDue = false;
  #isClosed = false;

  /**
   * Calls `onReadable` once in each round of the loop in which there is something to read, an error among it, and keeps
   * the process alive until `close`. What gives false has failed: it is called again in 10 ms at the earliest.
   * `startPoll` is koffi's, but in tests. Throws where there is no such library.
   */
  constructor(fd: number, onReadable: () => boolean, startPoll: StartPoll = pollByKoffi) {
    this.#onReadable = onReadable;
    this.#handle = startPoll(fd, this.#onEvent);
  }

  /** It no longer keeps the process alive. */
  unref(): void {
    if (!this.#isClosed) this.#handle.unref();
  }

  /** Comes before the descriptor itself is closed: its number may be another's at once. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#rest);
    this.#handle.close();
  }

  readonly #onEvent = (status: number): void => {
    if (status !== 0) this.#pause(); // libuv waits no more: an error is pending, which the next read takes
    if (this.#isDue) return;
    this.#isDue = true;
    setImmediate(this.#read);
  };

  readonly #read = (): void => {
    this.#isDue = false;
    if (this.#isClosed) return;
    if (!this.#onReadable()) this.#pause();
  };

  #pause(): void {
    if (this.#isClosed || this.#rest !== undefined) return;
    this.#handle.stop();
    this.#rest = setTimeout(() => {
      this.#rest = undefined;
      this.#handle.start(this.#onEvent);
    }, REST_MS); // which keeps the process alive, as the handle does that has stopped
  }
}
