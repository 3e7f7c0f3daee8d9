// One peer of the simulated network: a real Engine, what it was told, what its state file keeps over a restart, and a
// host behind it that answers what it is asked. Its clock is the one that real processes have, over a wall clock that
// stands some way off the world's and is set about; its idea of the coordinator's time is a little wrong, as in life.
import type { Endpoint } from "../base/address.ts";
import { SeededRandom } from "../base/random.ts";
import type { KeyPair } from "../crypto/provider.ts";
import type { LeaseVerifier } from "../engine/desired-state.ts";
import { Engine, type EngineSink } from "../engine/engine.ts";
import { type Clock, SystemClock } from "../io/clock.ts";
import { nextTimestampReserve } from "../wireguard/tai64n.ts";
import type { SignedLease } from "./coordinator.ts";
import type { Opener } from "./flow-memory.ts";
import { Judge } from "./judge.ts";
import type { Told } from "./law.ts";
import { Nat } from "./network.ts";
import type { Facts } from "./packets.ts";
import type { SimCrypto } from "./sim-crypto.ts";

/** How far off a station's idea of the coordinator's time may be, either way, once it has learned it. */
export const CLOCK_ERROR_MAX_MS = 50;

export interface StationPlan {
  readonly identity: string;
  readonly wantsV4: boolean;
  readonly offeredRoutes: readonly string[];
  readonly offeredServices: readonly string[];
  /** This host's wall clock minus the world's, at the start. */
  readonly skewMs: number;
  /** How far its idea of the coordinator's time is off. */
  readonly clockErrorMs: number;
  /** What the coordinator says takes up to this long. */
  readonly controlDelayMs: number;
  readonly isBehindNat: boolean;
  /** Its filter lets everything through and it knows every peer; it sends what it likes. */
  readonly isHostile: boolean;
}

export class Station {
  readonly number: number;
  readonly plan: StationPlan;
  readonly nat: Nat | undefined;
  readonly #crypto: SimCrypto;
  readonly #seed: number;
  keyPair: KeyPair;
  endpoint: Endpoint;
  session = "";
  engine: Engine;
  judge = new Judge("");
  told: Told | undefined;
  lease: SignedLease | undefined;
  /** No process is running. */
  isDown = false;
  /** Suspended: nothing is handled until then (the world's clock). */
  frozenUntilMs = Number.NEGATIVE_INFINITY;
  /** Nothing passes between it and the coordinator until then (the world's clock). */
  controlCutUntilMs = Number.NEGATIVE_INFINITY;
  /** Wakeups within the second that began at `wakeupsSinceMs` (the world's clock). */
  wakeups = 0;
  wakeupsSinceMs = 0;
  /** The engine's, when they were looked at last. */
  counters: Readonly<Record<string, number>> = {};
  /** As the state file keeps it: ahead of the last stamp sent. */
  keptTimestamp: Uint8Array | undefined;
  #runs = 0;
  /** Of the host, not of the process: over the world's clock. */
  #wallAheadMs: number;
  #worldMs: number;
  #clock: Clock;
  /** Of this process's clock over the world's. */
  #aheadMs = 0;
  /** Coordinator time − this process's clock, as it learned it last. */
  #offsetMs = 0;

  constructor(
    number: number,
    plan: StationPlan,
    crypto: SimCrypto,
    seed: number,
    keyPair: KeyPair,
    endpoint: Endpoint,
    worldMs: number,
    makeSink: (station: Station) => EngineSink,
    leases: LeaseVerifier,
  ) {
    this.number = number;
    this.plan = plan;
    this.nat = plan.isBehindNat ? new Nat() : undefined;
    this.#crypto = crypto;
    this.#seed = seed;
    this.keyPair = keyPair;
    this.endpoint = endpoint;
    this.#wallAheadMs = plan.skewMs;
    this.#worldMs = worldMs;
    this.#clock = this.#newClock();
    this.engine = this.#start(makeSink(this), leases);
  }

  /** nowMs of this process. */
  clock(worldMs: number): number {
    this.#worldMs = worldMs;
    const nowMs = this.#clock.nowMs();
    this.#aheadMs = nowMs - worldMs;
    return nowMs;
  }

  /** When this process's clock will show that, as far as can be told now. */
  worldMs(clockMs: number): number {
    return clockMs - this.#aheadMs;
  }

  /** The coordinator's time, as this station knows it. */
  coordinatorMs(worldMs: number): number {
    return this.clock(worldMs) + this.#offsetMs;
  }

  /** From the coordinator's answer: an authenticated record with its time. */
  learnTime(worldMs: number): void {
    this.#offsetMs = worldMs + this.plan.clockErrorMs - this.clock(worldMs);
    this.engine.setCoordinatorOffset(this.#offsetMs);
  }

  /** Somebody sets this host's wall clock. */
  setWallClock(worldMs: number, byMs: number): void {
    this.#wallAheadMs += byMs;
    this.clock(worldMs);
  }

  /** As the running peer does whenever a tunnel is wanted or has been made. */
  keepTimestamp(worldMs: number): void {
    const { lastTimestamp } = this.engine;
    if (lastTimestamp === undefined) return;
    const next = nextTimestampReserve(this.keptTimestamp, this.clock(worldMs), lastTimestamp);
    if (next !== undefined) this.keptTimestamp = next;
  }

  isControlCut(worldMs: number): boolean {
    return worldMs < this.controlCutUntilMs;
  }

  isRunning(worldMs: number): boolean {
    return !this.isDown && worldMs >= this.frozenUntilMs;
  }

  /** A new process from the state file: keys and the stamp that it is ahead of; all else the coordinator says again. */
  restart(worldMs: number, sink: EngineSink, leases: LeaseVerifier, started: () => void): void {
    this.#worldMs = worldMs;
    this.#clock = this.#newClock();
    this.#offsetMs = 0;
    this.clock(worldMs);
    this.engine = this.#start(sink, leases);
    this.counters = {};
    started();
    this.becomes(this.session);
    this.isDown = false;
  }

  /** As another session, or the same again: nothing that was told is kept. */
  becomes(session: string): void {
    this.session = session;
    this.judge = new Judge(session);
    this.told = undefined;
    this.lease = undefined;
  }

  setLease(worldMs: number, lease: SignedLease): void {
    this.lease = lease;
    if (!this.isDown) this.engine.setOwnLease(this.clock(worldMs), lease);
  }

  setTold(worldMs: number, told: Told): void {
    const before = this.told;
    this.told = told;
    for (const { session } of before?.state.peers ?? []) {
      if (!told.state.peers.some((peer) => peer.session === session)) this.judge.flows.forget(session);
    }
    if (!this.isDown) this.#apply(worldMs, told);
  }

  /**
   * By the judge: may its host send this? Asked for whichever peers the destination may lie behind; where it may, the
   * judge remembers the flow.
   */
  permitsOut(worldMs: number, facts: Facts): boolean {
    let isPermitted = false;
    for (const { session } of this.told?.state.peers ?? []) {
      if (this.#permits(worldMs, session, "local", facts)) isPermitted = true;
    }
    return isPermitted;
  }

  /** By the judge: may this come in from that session? */
  permitsIn(worldMs: number, session: string, facts: Facts): boolean {
    return this.#permits(worldMs, session, "remote", facts);
  }

  #permits(worldMs: number, session: string, sender: Opener, facts: Facts): boolean {
    const { told, judge } = this;
    if (told === undefined) return false;
    const permission = judge.permits(worldMs, told.law, this.coordinatorMs(worldMs), session, sender, facts);
    if (permission !== undefined) judge.note(worldMs, session, sender, facts, permission);
    return permission !== undefined;
  }

  /** World's time of the engine's next deadline; infinite while nothing runs. */
  nextDeadlineMs(): number {
    if (this.isDown) return Number.POSITIVE_INFINITY;
    return Math.max(this.worldMs(this.engine.nextDeadlineMs()), this.frozenUntilMs);
  }

  #apply(worldMs: number, told: Told): void {
    this.engine.apply(this.clock(worldMs), told.state);
    if (this.plan.isHostile) this.engine.filter.allowAll();
  }

  #newClock(): Clock {
    const startedMs = this.#worldMs;
    return new SystemClock(
      () => this.#worldMs + this.#wallAheadMs,
      () => this.#worldMs - startedMs,
    );
  }

  #start(sink: EngineSink, leases: LeaseVerifier): Engine {
    return new Engine({
      ...this.#crypto,
      random: new SeededRandom(this.#seed + 7919 * this.#runs++),
      keyPair: this.keyPair,
      mode: "badge",
      mtuBytes: 1420,
      sink,
      leases,
      ...(this.keptTimestamp === undefined ? {} : { lastTimestamp: this.keptTimestamp }),
    });
  }
}
