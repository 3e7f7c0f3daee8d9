// An initiation that was accepted and is to be answered: in two halves of one Diffie–Hellman each, which may be of two
// turns. What it holds is wiped when it is spent, or dropped.

import type { Endpoint } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import type { Random } from "../base/random.ts";
import type { Crypto, KeyPair } from "../crypto/provider.ts";
import { finishResponse, newEphemeral, prepareResponse, type ResponderState, wipeHandshake } from "./handshake.ts";

const LOW_ORDER = "a low-order ephemeral key was refused as it was opened, a static one as a peer";

export class Answer {
  /** Where message 1 came from. */
  readonly from: Endpoint;
  readonly remoteIndex: number;
  readonly #state: ResponderState;
  #ephemeral: KeyPair | undefined;

  constructor(from: Endpoint, state: ResponderState, remoteIndex: number) {
    this.from = from;
    this.remoteIndex = remoteIndex;
    this.#state = state;
  }

  /** The first half; false where it is done already. */
  prepare(crypto: Crypto, random: Random): boolean {
    if (this.#ephemeral !== undefined) return false;
    this.#ephemeral = newEphemeral(crypto, random);
    assert(prepareResponse(crypto, this.#state, this.#ephemeral), LOW_ORDER);
    return true;
  }

  /** The second half. */
  finish(
    crypto: Crypto,
    remotePublicKey: Uint8Array,
    presharedKey: Uint8Array | undefined,
  ): NonNullable<ReturnType<typeof finishResponse>> {
    assert(this.#ephemeral !== undefined, "an answer is prepared first");
    const response = finishResponse(crypto, this.#state, remotePublicKey, presharedKey, this.#ephemeral);
    this.wipe();
    assert(response !== undefined, LOW_ORDER);
    return response;
  }

  wipe(): void {
    wipeHandshake(this.#state);
    this.#ephemeral?.privateKey.fill(0);
  }
}
