// What the hosts behind the engines send: the traffic of the scenario, what hostile ones make up, and bytes from
// nobody. Each packet is written into the ledger with what its sender's rules said of it, then goes into that station's
// engine.
import { type Address, isV4, parseAddress } from "../base/address.ts";
import { randomBytes, type SeededRandom } from "../base/random.ts";
import type { SimCoordinator } from "./coordinator.ts";
import { SIM_BEHIND } from "./documents.ts";
import { hostileFacts, sourceFor, strangerAddress, trafficFacts } from "./host.ts";
import type { Ledger, SentPacket } from "./ledger.ts";
import type { SimNetwork } from "./network.ts";
import type { Facts, Mark } from "./packets.ts";
import * as packets from "./packets.ts";
import type { HostileStep, Step, TrafficStep } from "./scenario.ts";
import type { Station } from "./station.ts";

/** What senders need of the simulation that they are part of. */
export interface World {
  readonly nowMs: number;
  readonly stations: readonly Station[];
  readonly coordinator: SimCoordinator;
  readonly network: SimNetwork;
  readonly ledger: Ledger;
  /** Chance of hosts. */
  readonly hosts: SeededRandom;
  turn(station: Station, what: string, act: (clockMs: number) => void): void;
  later(delayMs: number, call: () => void): void;
  say(text: string): void;
}

export class Senders {
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  traffic(step: TrafficStep): void {
    const from = this.#world.stations[step.from]!;
    const addresses = this.#addressesOf(this.#world.stations[step.to]!);
    const destination = addresses[step.address % Math.max(1, addresses.length)];
    const source = destination === undefined ? undefined : sourceFor(from.told?.state.addresses ?? [], destination);
    if (destination === undefined || source === undefined) return;
    for (let i = 0; i < step.count; i++) {
      const facts = trafficFacts(step, i, source, destination);
      if (i > 0 && step.everyMs > 0) this.#world.later(i * step.everyMs, () => this.#injectOf(step, from, facts, i));
      else this.#injectOf(step, from, facts, i);
    }
  }

  hostile(step: HostileStep): void {
    const { stations } = this.#world;
    const from = stations[step.from]!;
    const destination = stations[step.to]!.told?.state.addresses[0];
    const owner = step.kind === "forge" ? stations[step.as]! : from;
    const source = owner.told?.state.addresses[0];
    if (destination === undefined || source === undefined) return;
    this.inject(from, hostileFacts(step, source, destination), { role: "silent", hops: 0 });
  }

  /** Bytes from nobody, at the outer socket. */
  garbage(step: Extract<Step, { kind: "garbage" }>): void {
    const { hosts, network, nowMs, stations } = this.#world;
    const bytes = randomBytes(hosts, Math.max(4, step.bytes));
    bytes.set([step.type, 0, 0, 0]);
    const from = { address: strangerAddress(hosts), port: 1 + hosts.below(65_535) };
    network.send(nowMs, { from, to: stations[step.to]!.endpoint, bytes });
  }

  /** The host behind `station` sends a packet. */
  inject(station: Station, facts: Facts, mark: Omit<Mark, "id">): void {
    if (!station.isRunning(this.#world.nowMs)) return;
    const id = this.#world.ledger.nextId;
    const bytes = packets.encodePacket(facts, packets.encodeMark({ ...mark, id }));
    this.injectBytes(station, facts, { ...mark, id }, bytes, "whole");
  }

  injectBytes(station: Station, facts: Facts, mark: Mark, bytes: Uint8Array, part: SentPacket["part"]): void {
    const { nowMs, ledger } = this.#world;
    ledger.add({
      id: mark.id,
      atMs: nowMs,
      station: station.number,
      session: station.session,
      facts,
      mark,
      bytes,
      permittedAtSource: station.plan.isHostile ? undefined : station.permitsOut(nowMs, facts),
      part,
      deliveredTo: undefined,
    });
    this.#world.say(`${station.number} sends #${mark.id} ${packets.shownFacts(facts)}`);
    const buffer = new Uint8Array(bytes.length + 64);
    buffer.set(bytes, 32);
    this.#world.turn(station, "packet", (clockMs) => station.engine.handlePacket(clockMs, buffer, 32, bytes.length));
  }

  #injectOf(step: TrafficStep, from: Station, facts: Facts, index: number): void {
    if (step.kind === "fragments" && !isV4(facts.source)) this.#injectFragments(from, facts, index);
    else this.inject(from, facts, { role: "ask", hops: step.hops });
  }

  #injectFragments(station: Station, facts: Facts, index: number): void {
    if (!station.isRunning(this.#world.nowMs)) return;
    const id = this.#world.ledger.nextId;
    const marks = [0, 1].map((part) => ({ id: id + part, role: "silent" as const, hops: 0 }));
    const [first, later] = marks.map(packets.encodeMark);
    const parts = packets.encodeFragments(facts, id * 8 + index, first!, later!);
    this.injectBytes(station, facts, marks[0]!, parts[0]!, "first");
    this.injectBytes(station, facts, marks[1]!, parts[1]!, "later");
  }

  /** Addresses at which something of that station's may be reached, own ones first. */
  #addressesOf(station: Station): Address[] {
    const session = this.#world.coordinator.law.world.sessions.get(station.session);
    if (session === undefined) return station.told?.state.addresses.slice() ?? [];
    return [
      ...session.addresses,
      ...session.serviceAddresses.values(),
      ...(session.offeredRoutes.length > 0 ? SIM_BEHIND.map((text) => parseAddress(text)!) : []),
    ];
  }
}
