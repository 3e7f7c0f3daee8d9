// One peer of the simulated network: a real Engine, what it was told, what it remembers over a restart, and a host
// behind it that answers what it is asked. Its clock stands some way off the world's, and its idea of the coordinator's
// is a little wrong, as in life.
import type { Endpoint } from "../base/address.ts";
import { SeededRandom } from "../base/random.ts";
import type { Crypto, KeyPair } from "../crypto/provider.ts";
import type { LeaseVerifier } from "../engine/desired-state.ts";
import { Engine, type EngineSink } from "../engine/engine.ts";
import type { SignedLease } from "./coordinator.ts";
import type { Opener } from "./flow-memory.ts";
import { Judge } from "./judge.ts";
import type { Told } from "./law.ts";
import { Nat } from "./network.ts";
import type { Facts } from "./packets.ts";

export interface StationPlan {
  readonly identity: string;
  readonly wantsV4: boolean;
  readonly offeredRoutes: readonly string[];
  readonly offeredServices: readonly string[];
  /** This station's clock minus the world's. */
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
  readonly #crypto: Crypto;
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
  isControlCut = false;
  /** Wakeups within the second that began at `wakeupsSinceMs`. */
  wakeups = 0;
  wakeupsSinceMs = 0;
  #runs = 0;

  constructor(
    number: number,
    plan: StationPlan,
    crypto: Crypto,
    seed: number,
    keyPair: KeyPair,
    endpoint: Endpoint,
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
    this.engine = this.#start(makeSink(this), leases, undefined);
  }

  /** nowMs of this process. */
  clock(worldMs: number): number {
    return worldMs + this.plan.skewMs;
  }

  worldMs(clockMs: number): number {
    return clockMs - this.plan.skewMs;
  }

  /** The coordinator's time, as this station knows it. */
  coordinatorMs(worldMs: number): number {
    return worldMs + this.plan.clockErrorMs;
  }

  isRunning(worldMs: number): boolean {
    return !this.isDown && worldMs >= this.frozenUntilMs;
  }

  /** A new process from the state file: keys, last timestamp, cached netmap, lease. */
  restart(worldMs: number, sink: EngineSink, leases: LeaseVerifier, started: () => void): void {
    const { lastTimestamp } = this.engine;
    this.engine = this.#start(sink, leases, lastTimestamp);
    started();
    this.judge = new Judge(this.session);
    this.isDown = false;
    if (this.told !== undefined) this.#apply(worldMs, this.told);
    if (this.lease !== undefined) this.engine.setOwnLease(this.clock(worldMs), this.lease);
  }

  /** As another session: nothing of the old one is kept. */
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

  #start(sink: EngineSink, leases: LeaseVerifier, lastTimestamp: Uint8Array | undefined): Engine {
    const engine = new Engine({
      crypto: this.#crypto,
      random: new SeededRandom(this.#seed + 7919 * this.#runs++),
      keyPair: this.keyPair,
      mode: "badge",
      mtuBytes: 1420,
      sink,
      leases,
      ...(lastTimestamp === undefined ? {} : { lastTimestamp }),
    });
    engine.setCoordinatorOffset(this.plan.clockErrorMs - this.plan.skewMs);
    return engine;
  }
}
