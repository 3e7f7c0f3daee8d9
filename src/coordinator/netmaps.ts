// The connected peers and what each was told last. A change becomes a signed delta for each peer whose map differs; a
// peer that says a delta didn't fit gets the whole map.

import { WirebadgeError } from "../base/errors.ts";
import { CONTROL_SESSIONS_CONNECTED_MAX } from "../base/limits.ts";
import { CLOSE } from "../control/close-codes.ts";
import { RECORD_DELTA, RECORD_NETMAP } from "../control/messages.ts";
import type { NetmapEntries, PeerEntry } from "../control/netmap.ts";
import { diffEntries, signDelta, signNetmap } from "../control/netmap-codec.ts";
import type { ControlConnection } from "./control-connection.ts";
import type { Core } from "./core.ts";
import type { BuiltNetmap } from "./netmap-builder.ts";
import type { ReservedCounter } from "./reserved-counter.ts";

interface Told {
  readonly connection: ControlConnection;
  entries: NetmapEntries;
  revision: number;
  /** When it changes by itself: a grant's end. */
  nextChangeMs: number;
}

export class Netmaps {
  readonly #core: Core;
  readonly #revisions: ReservedCounter;
  readonly #build: (session: string) => BuiltNetmap;
  readonly #connectedMax: number;
  readonly #told = new Map<string, Told>();
  /** Session → connected sessions whose map holds it as a peer. */
  readonly #seenBy = new Map<string, Set<string>>();

  constructor(
    core: Core,
    revisions: ReservedCounter,
    build: (session: string) => BuiltNetmap,
    connectedMax: number = CONTROL_SESSIONS_CONNECTED_MAX,
  ) {
    this.#connectedMax = connectedMax;
    this.#core = core;
    this.#revisions = revisions;
    this.#build = build;
  }

  get connected(): number {
    return this.#told.size;
  }

  connection(session: string): ControlConnection | undefined {
    return this.#told.get(session)?.connection;
  }

  /** What that connected peer was told last. */
  entries(session: string): NetmapEntries | undefined {
    return this.#told.get(session)?.entries;
  }

  connectedSessions(): string[] {
    return [...this.#told.keys()];
  }

  /** Connected sessions that know this one as a peer. */
  seenBy(session: string): string[] {
    return [...(this.#seenBy.get(session) ?? [])];
  }

  /** True when `session` was told of `other`. */
  knows(session: string, other: string): boolean {
    return this.#seenBy.get(other)?.has(session) === true;
  }

  /** Throws TOO_LARGE when as many are connected as may be: asked before anything is written for a newcomer. */
  checkRoom(session: string | undefined): void {
    if (session !== undefined && this.#told.has(session)) return;
    if (this.#told.size < this.#connectedMax) return;
    throw new WirebadgeError("TOO_LARGE", "this coordinator has as many peers connected as it may", {
      hint: "run another coordinator for another network",
    });
  }

  /** An older connection of the session is closed. */
  attach(session: string, connection: ControlConnection): void {
    const older = this.#told.get(session);
    if (older !== undefined) {
      this.#forget(session);
      older.connection.close(CLOSE.replaced);
    }
    this.#told.set(session, { connection, entries: {}, revision: 0, nextChangeMs: Number.POSITIVE_INFINITY });
  }

  /** Only for the connection that is attached; an older one's end changes nothing. */
  detach(session: string, connection: ControlConnection): boolean {
    if (this.#told.get(session)?.connection !== connection) return false;
    this.#forget(session);
    return true;
  }

  #forget(session: string): void {
    const told = this.#told.get(session);
    if (told === undefined) return;
    this.#index(session, told.entries, {});
    this.#told.delete(session);
  }

  /** The whole map, as it is now. */
  sendFull(session: string): void {
    const told = this.#told.get(session);
    if (told === undefined) return;
    const { entries, nextChangeMs } = this.#build(session);
    told.nextChangeMs = nextChangeMs ?? Number.POSITIVE_INFINITY;
    this.#index(session, told.entries, entries);
    told.entries = entries;
    told.revision = this.#revisions.next();
    const netmap = { epoch: this.#core.world.epoch, revision: told.revision, entries };
    this.#core.counters.add("netmaps-full");
    told.connection.sendBytes(
      RECORD_NETMAP,
      signNetmap(this.#core.crypto, this.#core.keys.sign.privateKey, session, netmap),
    );
  }

  /** Builds these peers' maps anew and tells those whose map changed; the number of those. */
  refresh(sessions: Iterable<string>): number {
    let changed = 0;
    for (const session of new Set(sessions)) {
      const told = this.#told.get(session);
      if (told === undefined) continue;
      const { entries, nextChangeMs } = this.#build(session);
      told.nextChangeMs = nextChangeMs ?? Number.POSITIVE_INFINITY;
      if (this.#sendChange(session, told, entries)) changed++;
    }
    return changed;
  }

  /** Those whose map changes by itself by now: grants that ended. */
  refreshDue(nowMs: number): number {
    const due = [...this.#told].filter(([, { nextChangeMs }]) => nextChangeMs <= nowMs).map(([session]) => session);
    return due.length === 0 ? 0 : this.refresh(due);
  }

  refreshAll(): number {
    return this.refresh(this.#told.keys());
  }

  /** New endpoints of one session: nobody's rules change, so only its entry is replaced where it is known. */
  setEndpoints(session: string, endpoints: readonly string[]): void {
    const key = `peer/${session}`;
    for (const other of this.seenBy(session)) {
      const told = this.#told.get(other)!;
      const entry = { ...(told.entries[key] as PeerEntry), endpoints: [...endpoints] };
      this.#sendChange(other, told, { ...told.entries, [key]: entry });
    }
  }

  #sendChange(session: string, told: Told, entries: NetmapEntries): boolean {
    const difference = diffEntries(told.entries, entries);
    if (difference === undefined) return false;
    const fromRevision = told.revision;
    this.#index(session, told.entries, entries);
    told.entries = entries;
    told.revision = this.#revisions.next();
    const delta = { epoch: this.#core.world.epoch, fromRevision, revision: told.revision, ...difference };
    this.#core.counters.add("netmaps-delta");
    told.connection.sendBytes(
      RECORD_DELTA,
      signDelta(this.#core.crypto, this.#core.keys.sign.privateKey, session, delta),
    );
    return true;
  }

  #index(session: string, before: NetmapEntries, after: NetmapEntries): void {
    for (const key of Object.keys(before)) {
      if (!key.startsWith("peer/") || Object.hasOwn(after, key)) continue;
      const set = this.#seenBy.get(key.slice(5));
      set?.delete(session);
      if (set?.size === 0) this.#seenBy.delete(key.slice(5));
    }
    for (const key of Object.keys(after)) {
      if (!key.startsWith("peer/") || Object.hasOwn(before, key)) continue;
      const other = key.slice(5);
      const set = this.#seenBy.get(other);
      if (set === undefined) this.#seenBy.set(other, new Set([session]));
      else set.add(session);
    }
  }
}
