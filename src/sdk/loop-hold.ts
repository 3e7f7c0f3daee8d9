// Keeps the process alive as long as something of the network is open in it, as the handles of real sockets do: the
// network itself runs in the background.
import { clearInterval, setInterval } from "node:timers";
import type { ProcessHold } from "../peer/overlay-socket.ts";

const NEVER_MS = 2 ** 31 - 1;

export class LoopHold implements ProcessHold {
  #count = 0;
  #handle: NodeJS.Timeout | undefined;

  hold(): void {
    this.#count++;
    this.#handle ??= setInterval(() => undefined, NEVER_MS);
  }

  release(): void {
    this.#count--;
    if (this.#count > 0) return;
    clearInterval(this.#handle);
    this.#handle = undefined;
  }
}
