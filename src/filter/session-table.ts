// Who is at the other ends of the tunnels: each session has a small number, its slot, by which a packet finds it
// without a string, and under which its flows are kept.
import { assert } from "../base/assert.ts";
import { DenialAllowance } from "./denials.ts";
import type { FirstFragments } from "./first-fragments.ts";
import type { SessionRules } from "./rules.ts";

const SLOTS_MAX = 2 ** 24; // what the flow key has room for

/** A small whole number that stands for a session id until `forget`. */
export type SessionSlot = number;

export interface Session {
  readonly id: string;
  readonly slot: SessionSlot;
  revoked: boolean;
  leaseEndMs: number | undefined;
  /** Undefined until asked for under the present state. */
  inbound: SessionRules | undefined;
  outbound: SessionRules | undefined;
  fragments: FirstFragments | undefined;
  readonly allowance: DenialAllowance;
}

export class SessionTable {
  readonly #byId = new Map<string, Session>();
  readonly #bySlot: (Session | undefined)[] = [];
  readonly #freeSlots: number[] = [];

  at(slot: SessionSlot): Session {
    const session = this.#bySlot[slot];
    assert(session !== undefined, "a session's slot");
    return session;
  }

  find(id: string): Session | undefined {
    return this.#byId.get(id);
  }

  values(): IterableIterator<Session> {
    return this.#byId.values();
  }

  /** A session that is not in the table yet. */
  add(id: string, revoked: boolean): Session {
    const slot = this.#freeSlots.pop() ?? this.#bySlot.length;
    assert(slot < SLOTS_MAX, "session slots");
    const session: Session = {
      id,
      slot,
      revoked,
      leaseEndMs: undefined,
      inbound: undefined,
      outbound: undefined,
      fragments: undefined,
      allowance: new DenialAllowance(),
    };
    this.#bySlot[slot] = session;
    this.#byId.set(id, session);
    return session;
  }

  /** Its slot is free for another: nobody may go on using the number. */
  forget(session: Session): void {
    this.#byId.delete(session.id);
    this.#bySlot[session.slot] = undefined;
    this.#freeSlots.push(session.slot);
  }
}
