// One run of a scenario: a virtual clock that jumps from event to event, real engines, and the invariants checked after
// every turn. Nothing here knows the time or chance but from the scenario.
import { type Endpoint, equalEndpoint, makeV4 } from "../base/address.ts";
import { CONTROL_PING_EVERY_MS } from "../base/limits.ts";
import { randomBytes, SeededRandom } from "../base/random.ts";
import { SECOND_MS } from "../base/units.ts";
import type { EngineSink } from "../engine/engine.ts";
import type { PolicyDocument } from "../policy/schema.ts";
import { type ControlMessage, type CoordinatorWake, type SignedLease, SimCoordinator } from "./coordinator.ts";
import { policyOf } from "./documents.ts";
import { EventQueue } from "./event-queue.ts";
import { hostAnswer } from "./host.ts";
import {
  checkCounters,
  checkDeadline,
  checkDelivery,
  checkDenial,
  checkFlowEnd,
  checkHoldings,
  type Delivery,
  identify,
  type Violation,
} from "./invariants.ts";
import { Ledger, type SentPacket } from "./ledger.ts";
import { NO_FAULTS, type SimDatagram, SimNetwork } from "./network.ts";
import type { Outcome, SimulationOptions } from "./outcome.ts";
import type { Facts, Mark } from "./packets.ts";
import * as packets from "./packets.ts";
import { Probes, TALK_WITHIN_MS } from "./probes.ts";
import { type Scenario, type Step, stepEndMs } from "./scenario.ts";
import { Senders, type World } from "./senders.ts";
import { makeSimCrypto } from "./sim-crypto.ts";
import { Station } from "./station.ts";
import { findStreamPair, STREAM_FAULTS, STREAM_WITHIN_MS, StreamTrial } from "./stream-trial.ts";
import { Trace } from "./trace.ts";

const PROBE_EVERY_MS = SECOND_MS;
const SETTLE_MS = 3 * SECOND_MS;
const TURNS_MAX = 400_000;
/** A running peer asks for the coordinator's time this often. */
const LEARN_TIME_EVERY_MS = CONTROL_PING_EVERY_MS;

type Event =
  | { readonly kind: "datagram"; readonly datagram: SimDatagram }
  | { readonly kind: "control"; readonly station: number; readonly message: ControlMessage }
  | { readonly kind: "wake"; readonly wake: CoordinatorWake }
  | { readonly kind: "step"; readonly step: Step }
  | { readonly kind: "host"; readonly station: number; readonly facts: Facts; readonly mark: Omit<Mark, "id"> }
  | { readonly kind: "call"; readonly call: () => void };

const simCrypto = makeSimCrypto();
const { crypto } = simCrypto;

/** Runs the scenario to its end, or to the first turn after which an invariant does not hold. */
export function simulate(scenario: Scenario, options: SimulationOptions = {}): Outcome {
  return new Simulation(scenario, options).run();
}

/** Times are multiples of a quarter of a millisecond: exact in every station's clock. */
function quarter(ms: number): number {
  return Math.round(ms * 4) / 4;
}

class Simulation {
  readonly #scenario: Scenario;
  readonly #options: SimulationOptions;
  readonly #queue = new EventQueue<Event>();
  readonly #network: SimNetwork;
  readonly #coordinator: SimCoordinator;
  readonly #stations: Station[] = [];
  readonly #ledger = new Ledger();
  readonly #senders: Senders;
  readonly #trace: Trace;
  readonly #hosts: SeededRandom;
  readonly #keys: SeededRandom;
  /** Of every session, as it got them. */
  readonly #held = new Map<string, SignedLease[]>();
  readonly #controlFreeMs: number[] = [];
  readonly #counters: Record<string, number> = {};
  #document: PolicyDocument;
  #probes: Probes | undefined;
  #stream: StreamTrial | undefined;
  #streams = 0;
  #nowMs: number;
  #turns = 0;
  #endpoints = 0;
  #violation: Violation | undefined;

  constructor(scenario: Scenario, options: SimulationOptions) {
    this.#scenario = scenario;
    this.#options = options;
    this.#document = scenario.document;
    this.#nowMs = scenario.startMs;
    this.#trace = new Trace(scenario.startMs, options.tailLines);
    this.#hosts = new SeededRandom(scenario.seed ^ 0x5eed_0001);
    this.#keys = new SeededRandom(scenario.seed ^ 0x5eed_0002);
    this.#network = new SimNetwork(new SeededRandom(scenario.seed ^ 0x5eed_0003), (atMs, datagram) =>
      this.#queue.push(quarter(atMs), { kind: "datagram", datagram }),
    );
    this.#coordinator = new SimCoordinator(
      crypto,
      new SeededRandom(scenario.seed ^ 0x5eed_0004),
      {
        send: (station, message) => this.#sendControl(station, message),
        knowsAll: (station) => scenario.stations[station]!.isHostile,
        wake: (atMs, wake) => {
          const lagMs = wake.kind === "publish" ? scenario.coordinatorLagMs : 0;
          this.#queue.push(quarter(atMs + lagMs), { kind: "wake", wake });
        },
      },
      scenario.network,
      new Map(scenario.identities.map((identity) => [identity.name, identity])),
      policyOf(scenario.document, 1),
    );
    this.#senders = new Senders(this.#asWorld());
    for (const [number] of scenario.stations.entries()) this.#addStation(number);
    this.#coordinator.publish(this.#nowMs);
    for (const station of this.#stations) this.#connect(station);
    for (const step of scenario.steps) this.#queue.push(step.atMs, { kind: "step", step });
  }

  #asWorld(): World {
    const simulation = this;
    return {
      get nowMs() {
        return simulation.#nowMs;
      },
      stations: this.#stations,
      coordinator: this.#coordinator,
      network: this.#network,
      ledger: this.#ledger,
      hosts: this.#hosts,
      turn: (station, what, act) => this.#turn(station, what, act),
      later: (delayMs, call) => this.#later(delayMs, call),
      say: (text) => this.#say(text),
    };
  }

  run(): Outcome {
    const lastMs = Math.max(this.#nowMs, ...this.#scenario.steps.map(stepEndMs));
    this.#runUntil(lastMs + SECOND_MS);
    if (this.#violation === undefined) this.#calmDown();
    for (const station of this.#stations) this.#addCounters(station);
    return {
      seed: this.#scenario.seed,
      violation: this.#violation,
      hash: this.#trace.hash(),
      tail: this.#trace.tail(),
      virtualMs: this.#nowMs - this.#scenario.startMs,
      turns: this.#turns,
      sent: this.#ledger.sent,
      delivered: this.#ledger.delivered,
      slowestPairMs: this.#probes?.slowestMs(this.#nowMs) ?? 0,
      pairs: this.#probes?.size ?? 0,
      streams: this.#streams,
      counters: this.#counters,
    };
  }

  // ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** `isDone` is asked after every instant. */
  #runUntil(untilMs: number, isDone: () => boolean = () => false): void {
    while (this.#violation === undefined && !isDone()) {
      const timerMs = Math.min(...this.#stations.map((station) => station.nextDeadlineMs()));
      const streamMs = this.#stream?.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
      const nextMs = Math.max(this.#nowMs, Math.min(this.#queue.nextMs, timerMs, streamMs));
      if (nextMs > untilMs) break;
      this.#nowMs = nextMs;
      for (let event = this.#queue.takeDue(nextMs); event !== undefined; event = this.#queue.takeDue(nextMs)) {
        this.#handle(event);
        if (this.#violation !== undefined) return;
      }
      for (const station of this.#stations) if (station.nextDeadlineMs() <= nextMs) this.#timeout(station);
      if (streamMs <= nextMs) this.#fail(this.#stream!.handleTimeout(nextMs));
      if (this.#turns > TURNS_MAX) this.#fail({ invariant: "no-busy-deadline", detail: "the run does not end" });
    }
    if (this.#violation === undefined && !isDone()) this.#nowMs = Math.max(this.#nowMs, untilMs);
  }

  #timeout(station: Station): void {
    this.#turn(station, "timeout", (clockMs) => station.engine.handleTimeout(clockMs));
    if (this.#violation === undefined) this.#fail(checkDeadline(station, this.#nowMs));
  }

  /** One call into an engine, and all that follows from it at once. */
  #turn(station: Station, what: string, act: (clockMs: number) => void): void {
    this.#turns++;
    const { engine } = station;
    try {
      act(station.clock(this.#nowMs));
      for (let rounds = 0; engine.settle() && rounds < 100; rounds++);
      this.#fail(checkHoldings(station, engine.holdings()));
      while (engine.takeLocalReply() !== undefined); // to its own host, which needs no telling
    } catch (error) {
      const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
      this.#fail({ invariant: "never-throws", detail: `${what} at station ${station.number}: ${detail}` });
    }
  }

  #fail(violation: Violation | undefined): void {
    if (violation === undefined || this.#violation !== undefined) return;
    this.#violation = violation;
    this.#say(`VIOLATION ${violation.invariant}: ${violation.detail}`);
  }

  #say(text: string): void {
    this.#trace.add(this.#nowMs, text);
  }

  // ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────

  #handle(event: Event): void {
    switch (event.kind) {
      case "datagram":
        return this.#deliverDatagram(event.datagram);
      case "control":
        return this.#deliverControl(this.#stations[event.station]!, event.message);
      case "wake":
        return this.#coordinator.wake(this.#nowMs, event.wake);
      case "step":
        return this.#step(event.step);
      case "host":
        return this.#senders.inject(this.#stations[event.station]!, event.facts, event.mark);
      case "call":
        return event.call();
    }
  }

  #deliverDatagram({ from, to, bytes }: SimDatagram): void {
    const station = this.#stations.find((candidate) => equalEndpoint(candidate.endpoint, to));
    if (station === undefined || !station.isRunning(this.#nowMs)) return;
    if (station.nat !== undefined && !station.nat.lets(this.#nowMs, from)) return;
    const buffer = bytes.slice();
    this.#turn(station, "datagram", (clockMs) =>
      station.engine.handleDatagram(clockMs, from, buffer, 0, buffer.length),
    );
  }

  #send(station: Station, to: Endpoint, bytes: Uint8Array): void {
    if (packets.showsMark(bytes)) {
      this.#fail({ invariant: "nothing-in-clear", detail: `a datagram of station ${station.number}` });
    }
    station.nat?.sent(this.#nowMs, to);
    const target = this.#stations.find((candidate) => equalEndpoint(candidate.endpoint, to));
    this.#trace.count(`${station.number}>${target?.number} ${bytes[0]} ${bytes.length}`);
    if (target === undefined) return this.#network.send(this.#nowMs, { from: station.endpoint, to, bytes });
    if (this.#network.isCut(this.#nowMs, station.number, target.number)) return;
    const loss = this.#network.lossOf(this.#nowMs, station.number, target.number);
    this.#network.send(this.#nowMs, { from: station.endpoint, to, bytes }, loss);
  }

  #step(step: Step): void {
    for (const station of this.#stations) this.#fail(checkCounters(station));
    switch (step.kind) {
      case "udp":
      case "tcp":
      case "echo":
      case "fragments":
        return this.#senders.traffic(step);
      case "forge":
      case "unasked":
        return this.#senders.hostile(step);
      case "garbage":
        return this.#senders.garbage(step);
      case "policy":
        return this.#setPolicy(step.document);
      case "churn":
        for (let i = 0; i < step.times; i++) {
          const document = i % 2 === 0 ? step.document : this.#document;
          this.#later(i * step.everyMs, () => this.#setPolicy(document));
        }
        return;
      case "faults":
        this.#say(`network: ${JSON.stringify(step.faults)}`);
        this.#network.faults = step.faults;
        return;
      case "cut":
        this.#say(`network: nothing from ${step.from} to ${step.to} for ${step.forMs} ms`);
        return this.#network.cut(step.from, step.to, this.#nowMs + step.forMs);
      case "one-way-loss":
        this.#say(`network: ${step.loss} lost from ${step.from} to ${step.to} for ${step.forMs} ms`);
        return this.#network.weaken(step.from, step.to, step.loss, this.#nowMs + step.forMs);
      case "partition":
        return this.#partition(step);
      case "epoch":
        this.#say("a new epoch");
        return this.#coordinator.beginEpoch(this.#nowMs);
      default:
        return this.#stationStep(step, this.#stations[step.station]!);
    }
  }

  #stationStep(step: Extract<Step, { station: number }>, station: Station): void {
    const { number } = station;
    this.#say(`station ${number}: ${step.kind}`);
    switch (step.kind) {
      case "control-cut":
        return this.#cutControl(station, step.forMs);
      case "rebind":
        this.#rebind(station);
        return this.#later(step.knownAfterMs, () =>
          this.#coordinator.setEndpoint(this.#nowMs, station.session, station.endpoint),
        );
      case "crash":
        if (station.isDown) return;
        this.#addCounters(station);
        station.isDown = true;
        station.setWallClock(this.#nowMs, step.clockByMs);
        return this.#later(step.forMs, () => {
          if (station.isDown) this.#restart(station); // the calm may have come before
        });
      case "freeze":
        station.frozenUntilMs = Math.max(station.frozenUntilMs, this.#nowMs + step.forMs);
        return;
      case "clock":
        this.#say(`station ${number}: its wall clock is set by ${step.byMs} ms`);
        this.#turn(station, "clock", () => station.setWallClock(this.#nowMs, step.byMs));
        return this.#later(this.#hosts.below(LEARN_TIME_EVERY_MS), () => this.#learnTime(station));
      case "rotate-key":
        if (station.isDown || this.#coordinator.stationOf(station.session) === undefined) return;
        this.#addCounters(station);
        station.keyPair = this.#newKeyPair();
        station.isDown = true;
        this.#restart(station);
        return this.#coordinator.setPublicKey(this.#nowMs, station.session, station.keyPair.publicKey);
      case "revoke":
        return this.#coordinator.revoke(this.#nowMs, station.session);
      case "remove":
        return this.#coordinator.remove(this.#nowMs, station.session);
      case "enrol":
        return this.#enrolAgain(station);
    }
  }

  #setPolicy(document: PolicyDocument): void {
    this.#say("a new policy");
    this.#document = document;
    this.#coordinator.setPolicy(this.#nowMs, policyOf(document, this.#coordinator.policy.version + 1));
  }

  #partition({ stations, isFromCoordinator, forMs }: Extract<Step, { kind: "partition" }>): void {
    this.#say(`network: ${stations} apart${isFromCoordinator ? ", from the coordinator too" : ""} for ${forMs} ms`);
    for (const here of stations) {
      if (isFromCoordinator) this.#cutControl(this.#stations[here]!, forMs);
      for (const { number: there } of this.#stations) {
        if (stations.includes(there)) continue;
        this.#network.cut(here, there, this.#nowMs + forMs);
        this.#network.cut(there, here, this.#nowMs + forMs);
      }
    }
  }

  #later(delayMs: number, call: () => void): void {
    this.#queue.push(quarter(this.#nowMs + delayMs), { kind: "call", call });
  }

  // ── stations ───────────────────────────────────────────────────────────────────────────────────────────────────

  #addStation(number: number): void {
    const plan = this.#scenario.stations[number]!;
    const station = new Station(
      number,
      plan,
      simCrypto,
      this.#scenario.seed * 64 + number,
      this.#newKeyPair(),
      this.#nextEndpoint(),
      this.#nowMs,
      (made) => this.#sinkOf(made),
      this.#coordinator.leases,
    );
    this.#options.sabotage?.(station);
    this.#stations.push(station);
    this.#controlFreeMs.push(this.#nowMs);
    this.#enrol(station);
  }

  #enrol(station: Station): void {
    const session = this.#coordinator.enrol({
      ...station.plan,
      station: station.number,
      publicKey: station.keyPair.publicKey,
      endpoint: station.endpoint,
    });
    station.becomes(session.id);
    this.#say(
      `station ${station.number} is ${session.id} of ${session.identity}${station.plan.isHostile ? ", hostile" : ""}`,
    );
  }

  /** New keys, a new session; an old one that still stands is taken away. */
  #enrolAgain(station: Station): void {
    if (station.isDown) return;
    this.#coordinator.remove(this.#nowMs, station.session);
    this.#addCounters(station);
    station.keyPair = this.#newKeyPair();
    station.keptTimestamp = undefined;
    this.#enrol(station);
    this.#coordinator.publish(this.#nowMs);
    this.#restart(station);
  }

  #restart(station: Station): void {
    station.restart(this.#nowMs, this.#sinkOf(station), this.#coordinator.leases, () =>
      this.#options.sabotage?.(station),
    );
    this.#connect(station);
  }

  #cutControl(station: Station, forMs: number): void {
    station.controlCutUntilMs = Math.max(station.controlCutUntilMs, quarter(this.#nowMs + forMs));
    this.#later(forMs, () => this.#connect(station));
  }

  #connect(station: Station): void {
    if (station.isDown || station.isControlCut(this.#nowMs)) return;
    station.learnTime(this.#nowMs);
    this.#coordinator.connected(this.#nowMs, station.session);
  }

  #learnTime(station: Station): void {
    if (!station.isControlCut(this.#nowMs) && station.isRunning(this.#nowMs)) station.learnTime(this.#nowMs);
  }

  #addCounters(station: Station): void {
    for (const [name, count] of Object.entries(station.engine.counters())) {
      this.#counters[name] = (this.#counters[name] ?? 0) + count;
    }
  }

  #newKeyPair(): { privateKey: Uint8Array; publicKey: Uint8Array } {
    const privateKey = randomBytes(this.#keys, 32);
    return { privateKey, publicKey: crypto.publicKey(privateKey) };
  }

  #rebind(station: Station): void {
    station.endpoint = this.#nextEndpoint();
    station.nat?.rebind();
  }

  #nextEndpoint(): Endpoint {
    return { address: makeV4(0xc6120000 + this.#endpoints), port: 10_000 + 7 * this.#endpoints++ };
  }

  #sinkOf(station: Station): EngineSink {
    return {
      sendDatagram: (to, buffer, offset, length) => this.#send(station, to, buffer.slice(offset, offset + length)),
      deliverPacket: (session, buffer, offset, length) =>
        this.#delivered(station, session, buffer.slice(offset, offset + length)),
      denied: (record) => {
        this.#say(`station ${station.number} denies ${record.reason} (${record.hop}) port ${record.destinationPort}`);
        this.#fail(checkDenial(station, this.#nowMs, record));
      },
      deniedByPeer: (session, denial) => this.#trace.count(`told ${station.number} ${session} ${denial.reason}`),
      flowEnded: (flow) => {
        this.#say(`station ${station.number}: a flow to port ${flow.destinationPort} ended: ${flow.end}`);
        this.#fail(checkFlowEnd(station, this.#nowMs, flow));
      },
      tunnelWanted: (session) => {
        station.keepTimestamp(this.#nowMs);
        if (!station.isControlCut(this.#nowMs)) this.#coordinator.tunnelWanted(station.session, session);
      },
      tunnelUp: (session) => {
        station.keepTimestamp(this.#nowMs);
        this.#say(`station ${station.number}: tunnel with ${session}`);
      },
      tunnelFailed: (session) => this.#say(`station ${station.number}: no tunnel with ${session}`),
    };
  }

  // ── control ────────────────────────────────────────────────────────────────────────────────────────────────────

  #sendControl(number: number, message: ControlMessage): boolean {
    const station = this.#stations[number]!;
    if (station.isControlCut(this.#nowMs) || station.isDown) return false;
    const atMs = Math.max(
      this.#controlFreeMs[number]!,
      station.frozenUntilMs,
      quarter(this.#nowMs + 1 + this.#hosts.below(station.plan.controlDelayMs)),
    );
    this.#controlFreeMs[number] = atMs;
    this.#queue.push(atMs, { kind: "control", station: number, message });
    return true;
  }

  #deliverControl(station: Station, message: ControlMessage): void {
    if (station.isControlCut(this.#nowMs) || !station.isRunning(this.#nowMs)) return;
    switch (message.kind) {
      case "told":
        if (message.told.session !== station.session) return;
        this.#say(`station ${station.number} is told revision ${message.told.law.revision}`);
        return this.#turn(station, "apply", () => station.setTold(this.#nowMs, message.told));
      case "lease": {
        if (message.session !== station.session) return;
        this.#trace.count(`lease ${station.number} ${message.lease.serial}`);
        const held = this.#held.get(message.session);
        if (held === undefined) this.#held.set(message.session, [message.lease]);
        else held.push(message.lease);
        return this.#turn(station, "lease", () => station.setLease(this.#nowMs, message.lease));
      }
      case "punch":
        return this.#turn(station, "punch", (clockMs) => station.engine.punch(clockMs, message.session));
    }
  }

  // ── packets ────────────────────────────────────────────────────────────────────────────────────────────────────

  #delivered(station: Station, session: string, packet: Uint8Array): void {
    const delivery: Delivery = { worldMs: this.#nowMs, station, session, packet, leases: this.#held };
    const known = identify(this.#ledger, delivery);
    if ("invariant" in known) return this.#fail(known);
    const sent = "facts" in known ? known : undefined;
    const facts = "facts" in known ? known.facts : known;
    this.#say(
      `${station.number} gets ${sent === undefined ? "an answer" : `#${sent.id}`} ${packets.shownFacts(facts)}`,
    );
    const violation = checkDelivery(delivery, facts, sent);
    if (violation !== undefined) return this.#fail(violation);
    if (!station.permitsIn(this.#nowMs, session, facts) && !station.plan.isHostile) {
      const detail = `${packets.shownFacts(facts)} at station ${station.number}, from ${session}`;
      return this.#fail({ invariant: "nothing-forbidden", detail });
    }
    this.#ledger.delivered++;
    if (sent !== undefined) sent.deliveredTo = station.number;
    if (this.#stream?.takes(station, facts)) return this.#toStack(this.#stream, station, packet);
    if (sent === undefined) return;
    this.#probes?.note(this.#nowMs, station, sent);
    if (sent.part === "whole") this.#host(station, sent);
  }

  #host(station: Station, sent: SentPacket): void {
    const answer = hostAnswer(sent, this.#hosts);
    if (answer === undefined) return;
    const { delayMs, facts, mark } = answer;
    this.#queue.push(quarter(this.#nowMs + delayMs), { kind: "host", station: station.number, facts, mark });
  }

  // ── when the faults stop ───────────────────────────────────────────────────────────────────────────────────────

  /** Everything heals; then every allowed pair must talk, both ways at once, within TALK_WITHIN_MS. */
  #calmDown(): void {
    this.#runUntil(Math.max(this.#nowMs, ...this.#stations.map((station) => station.frozenUntilMs)));
    this.#say("the faults stop");
    this.#network.faults = NO_FAULTS;
    this.#network.mendAll();
    for (const station of this.#stations) {
      if (this.#hosts.chance(0.5)) this.#rebind(station);
      station.controlCutUntilMs = Number.NEGATIVE_INFINITY;
      if (station.isDown) this.#restart(station);
      else this.#connect(station);
      this.#coordinator.setEndpoint(this.#nowMs, station.session, station.endpoint);
    }
    this.#runUntil(this.#nowMs + SETTLE_MS);
    const startMs = this.#nowMs;
    const probes = new Probes(this.#coordinator.law, startMs, this.#stations);
    this.#probes = probes;
    while (this.#violation === undefined && probes.waiting().length > 0) {
      if (this.#nowMs >= startMs + TALK_WITHIN_MS) return this.#fail(probes.silence());
      for (const { from, facts } of probes.waiting()) this.#senders.inject(from, facts, { role: "probe", hops: 1 });
      this.#runUntil(this.#nowMs + PROBE_EVERY_MS, () => probes.waiting().length === 0);
    }
    if (this.#violation === undefined && this.#scenario.hasStream) this.#tryStream();
  }

  /** One of the pairs gets a byte stream, over a network that is a little bad again. */
  #tryStream(): void {
    const pair = findStreamPair(this.#coordinator.law, this.#nowMs, this.#stations);
    if (pair === undefined) return;
    this.#say(`a stream from ${pair.from.number} to ${pair.to.number}`);
    this.#network.faults = STREAM_FAULTS;
    const stream = new StreamTrial(pair, this.#hosts, (station, bytes) => {
      const facts = packets.readFacts(bytes)!;
      const mark: Mark = { id: this.#ledger.nextId, role: "silent", hops: 0 };
      this.#senders.injectBytes(station, facts, mark, bytes, "segment");
    });
    this.#stream = stream;
    stream.start(this.#nowMs);
    const roaming = this.#hosts.chance(0.5) ? pair.from : pair.to;
    this.#later(1_500, () => this.#stationStep({ kind: "rebind", station: 0, atMs: 0, knownAfterMs: 500 }, roaming));
    for (let i = 1; i <= 3; i++) this.#later(i * SECOND_MS, () => this.#coordinator.publish(this.#nowMs));
    this.#runUntil(this.#nowMs + STREAM_WITHIN_MS, () => stream.isDone || stream.check(false) !== undefined);
    this.#fail(stream.check(true));
    this.#streams = stream.isDone ? 1 : 0;
  }

  /** Not within the engine's call: what the stack says in answer goes into the engine again. */
  #toStack(stream: StreamTrial, station: Station, packet: Uint8Array): void {
    this.#later(0, () => stream.handlePacket(this.#nowMs, station, packet));
  }
}
