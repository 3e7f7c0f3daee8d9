// Source ports nobody asked for by number: a random start, then the next free one (RFC 6056 §3.3.2). Below the
// overlay's reserved ports.
import { type Random, randomBelow } from "../base/random.ts";

export const EPHEMERAL_PORT_FIRST = 32_768;
export const EPHEMERAL_PORT_COUNT = 16_384;

export class EphemeralPorts {
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Undefined when every port is taken. */
  pick(isFree: (port: number) => boolean): number | undefined {
    const start = randomBelow(this.#random, EPHEMERAL_PORT_COUNT);
    for (let i = 0; i < EPHEMERAL_PORT_COUNT; i++) {
      const port = EPHEMERAL_PORT_FIRST + ((start + i) % EPHEMERAL_PORT_COUNT);
      if (isFree(port)) return port;
    }
    return undefined;
  }
}
