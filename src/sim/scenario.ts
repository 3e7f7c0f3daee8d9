// What is to happen in one run, as data drawn from a seed: who there is, and steps in order of time. As data it can be
// shown, cut down and run again.
import { formatAddress, makeAddress, makePrefix, makeV4, type Prefix } from "../base/address.ts";
import { SeededRandom } from "../base/random.ts";
import { DAY_MS, HOUR_MS, SECOND_MS } from "../base/units.ts";
import type { PolicyDocument } from "../policy/schema.ts";
import type { WorldIdentity } from "../policy/world.ts";
import { drawDocument, SIM_PORTS, SIM_ROUTES, SIM_SERVICES } from "./documents.ts";
import type { NetworkFaults } from "./network.ts";
import { CLOCK_ERROR_MAX_MS, type StationPlan } from "./station.ts";

/** Who sends what to whom: numbers of stations. */
export interface TrafficStep {
  readonly kind: "udp" | "tcp" | "echo" | "fragments";
  readonly from: number;
  readonly to: number;
  /** Which of the target's addresses: own, of its services, behind its routes; taken modulo how many there are. */
  readonly address: number;
  readonly sourcePort: number;
  readonly port: number;
  readonly count: number;
  /** Between two of them; all at once at 0. TCP goes on on one connection then. */
  readonly everyMs: number;
  /** How many packets may come of each. */
  readonly hops: number;
}

/** What only a hostile station does; `as` is whose address it puts on the packet. */
export interface HostileStep {
  readonly kind: "forge" | "unasked";
  readonly from: number;
  readonly to: number;
  readonly as: number;
  readonly sourcePort: number;
  readonly port: number;
  /** "unasked": which kind of answer nobody asked for. */
  readonly answer: "syn-ack" | "ack" | "reset" | "echo-reply" | "icmp-error";
}

export type Step = { readonly atMs: number } & (
  | TrafficStep
  | HostileStep
  | { readonly kind: "garbage"; readonly to: number; readonly type: number; readonly bytes: number }
  | { readonly kind: "faults"; readonly faults: NetworkFaults }
  | { readonly kind: "cut"; readonly from: number; readonly to: number; readonly forMs: number }
  | {
      readonly kind: "one-way-loss";
      readonly from: number;
      readonly to: number;
      readonly loss: number;
      readonly forMs: number;
    }
  | {
      /** Nothing between these stations and all others; with the coordinator among the others where it says so. */
      readonly kind: "partition";
      readonly stations: readonly number[];
      readonly isFromCoordinator: boolean;
      readonly forMs: number;
    }
  | { readonly kind: "control-cut"; readonly station: number; readonly forMs: number }
  | { readonly kind: "rebind"; readonly station: number; readonly knownAfterMs: number }
  /** `clockByMs`: how far its wall clock is off afterwards, as on a board without a battery; else 0. */
  | { readonly kind: "crash"; readonly station: number; readonly forMs: number; readonly clockByMs: number }
  | { readonly kind: "freeze"; readonly station: number; readonly forMs: number }
  /** Somebody sets that host's wall clock. */
  | { readonly kind: "clock"; readonly station: number; readonly byMs: number }
  | { readonly kind: "rotate-key"; readonly station: number }
  | { readonly kind: "policy"; readonly document: PolicyDocument }
  /** That document and the one in force, in turns. */
  | { readonly kind: "churn"; readonly document: PolicyDocument; readonly times: number; readonly everyMs: number }
  | { readonly kind: "revoke"; readonly station: number }
  | { readonly kind: "remove"; readonly station: number }
  | { readonly kind: "enrol"; readonly station: number }
  | { readonly kind: "epoch" }
);

export interface Scenario {
  readonly seed: number;
  readonly startMs: number;
  readonly network: { readonly ula: Prefix; readonly pool4: Prefix };
  readonly identities: readonly WorldIdentity[];
  readonly stations: readonly StationPlan[];
  readonly document: PolicyDocument;
  /** How late the coordinator is when an `until` has passed; the engines are not. */
  readonly coordinatorLagMs: number;
  readonly steps: readonly Step[];
  /** At the end a byte stream between two userspace stacks, where somebody may open one. */
  readonly hasStream: boolean;
}

const START_MS = 1_700_000_000_000;
const NAMES = [
  { name: "agent:coder", kind: "agent" },
  { name: "node:gw-1", kind: "node" },
  { name: "user:ana@example.com", kind: "user" },
  { name: "agent:auditor", kind: "agent" },
  { name: "node:gw-2", kind: "node" },
  { name: "agent:tester", kind: "agent" },
] as const;

/** The same scenario for the same seed, whatever the machine. */
export function drawScenario(seed: number): Scenario {
  const random = new SeededRandom(seed);
  const identities: WorldIdentity[] = NAMES.map(({ name, kind }) => ({
    name,
    kind,
    ...(kind === "agent" && random.chance(0.7) ? { sponsor: "user:ana@example.com" } : {}),
    tags: ["red", "blue"].filter(() => random.chance(0.4)),
  }));
  const startMs = START_MS + random.below(1_000_000);
  const stations: StationPlan[] = [];
  const count = 3 + random.below(3);
  const hostile = random.chance(0.75) ? random.below(count) : -1;
  for (let number = 0; number < count; number++) {
    stations.push(drawStation(random, identities, number, number === hostile));
  }
  const steps = drawSteps(random, startMs, stations);
  return {
    seed,
    startMs,
    network: {
      ula: makePrefix(makeAddress(0xfd000000 + random.below(0x100_0000), random.u32(), 0, 0), 48),
      pool4: makePrefix(makeV4(0x0a630000), 112),
    },
    identities,
    stations,
    document: drawDocument(random, startMs),
    coordinatorLagMs: random.pick([0, 10_000, 60_000]),
    steps,
    hasStream: random.chance(0.25),
  };
}

function drawStation(
  random: SeededRandom,
  identities: readonly WorldIdentity[],
  number: number,
  isHostile: boolean,
): StationPlan {
  // The first ones are an agent, a gateway and somebody else; later ones may be further sessions of the same identity.
  const identity = number < 3 ? identities[number]! : random.pick(identities);
  const isNode = identity.kind === "node";
  return {
    identity: identity.name,
    wantsV4: identity.kind !== "agent" || random.chance(0.3),
    offeredRoutes: isNode ? SIM_ROUTES.filter(() => random.chance(0.7)) : [],
    offeredServices: isNode ? (random.chance(0.5) ? ["*"] : SIM_SERVICES.filter(() => random.chance(0.7))) : [],
    skewMs: random.pick([0, 0, 500, -90_000, 86_400_000]),
    clockErrorMs: random.below(2 * CLOCK_ERROR_MAX_MS + 1) - CLOCK_ERROR_MAX_MS,
    controlDelayMs: random.pick([20, 300, 3_000]),
    isBehindNat: random.chance(0.3),
    isHostile,
  };
}

const CALM: NetworkFaults = { loss: 0.01, duplicate: 0.02, corrupt: 0.005, replay: 0.02, delayMs: 15, jitterMs: 10 };

function drawFaults(random: SeededRandom): NetworkFaults {
  if (random.chance(0.4)) return CALM;
  return {
    loss: random.pick([0, 0.05, 0.2, 0.5]),
    duplicate: random.pick([0, 0.1, 0.5]),
    corrupt: random.pick([0, 0.02, 0.1]),
    replay: random.pick([0, 0.05, 0.3]),
    delayMs: random.pick([1, 20, 150]),
    jitterMs: random.pick([1, 30, 400]),
  };
}

type DrawnStep = Step extends infer S ? (S extends Step ? Omit<S, "atMs"> : never) : never;
type EventKind = Exclude<Step["kind"], TrafficStep["kind"] | HostileStep["kind"]>;

const EVENTS: readonly EventKind[] = [
  "faults",
  "cut",
  "one-way-loss",
  "partition",
  "control-cut",
  "rebind",
  "crash",
  "freeze",
  "clock",
  "rotate-key",
  "revoke",
  "remove",
  "enrol",
  "epoch",
  "garbage",
  "policy",
  "churn",
];

const CLOCK_STEPS_MS = [DAY_MS, -DAY_MS, HOUR_MS, -HOUR_MS, 700_000, -5_000] as const;

/** Each world has some kinds of trouble and not others: together they would hide each other's effects (Groce 2012). */
function drawSteps(random: SeededRandom, startMs: number, stations: readonly StationPlan[]): Step[] {
  const events = EVENTS.filter(() => random.chance(0.5)).concat("policy", "control-cut");
  const steps: Step[] = [{ atMs: startMs, kind: "faults", faults: CALM }];
  let atMs = startMs + 2 * SECOND_MS;
  const count = 25 + random.below(30);
  const siegeAt = random.chance(0.6) ? random.below(count) : -1;
  const trouble = random.pick([0.15, 0.3, 0.4]);
  for (let i = 0; i < count; i++) {
    atMs += random.chance(0.05) ? 30_000 + random.below(120_000) : random.below(2_500);
    const step = random.chance(trouble)
      ? drawEvent(random, random.pick(events), atMs, stations)
      : drawTraffic(random, stations);
    steps.push({ atMs, ...step } as Step);
    if (i === siegeAt) steps.push(...drawSiege(random, atMs, stations));
  }
  return steps.sort((a, b) => a.atMs - b.atMs);
}

/** A hostile station keeps at another one for a minute, while policy and leases change under it. */
function drawSiege(random: SeededRandom, atMs: number, stations: readonly StationPlan[]): Step[] {
  const from = stations.findIndex((station) => station.isHostile);
  if (from < 0) return [];
  const to = (from + 1 + random.below(stations.length - 1)) % stations.length;
  const kind = random.pick(["udp", "tcp"] as const);
  const flows: Step[] = SIM_PORTS.map((port, index) => ({
    atMs: atMs + 2_000 + index,
    kind,
    from,
    to,
    address: 0,
    sourcePort: 41_000,
    port,
    count: 25,
    everyMs: 2_000,
    hops: 0,
  }));
  const events: Step[] = [
    { atMs, kind: "policy", document: drawDocument(random, atMs) },
    { atMs: atMs + 30_000, kind: "policy", document: drawDocument(random, atMs + 30_000) },
    { atMs: atMs + 10_000, kind: "control-cut", station: random.pick([from, to]), forMs: 40_000 },
  ];
  return [events[0]!, ...flows, ...events.slice(1).filter(() => random.chance(0.5))];
}

function drawTraffic(random: SeededRandom, stations: readonly StationPlan[]): DrawnStep {
  const hostile = stations.findIndex((station) => station.isHostile);
  const from = hostile >= 0 && random.chance(0.3) ? hostile : random.below(stations.length);
  const to = (from + 1 + random.below(stations.length - 1)) % stations.length;
  const sourcePort = random.chance(0.7) ? 40_000 + random.below(8) : random.pick(SIM_PORTS);
  const port = random.pick(SIM_PORTS);
  if (stations[from]!.isHostile && random.chance(0.35)) {
    return {
      kind: random.pick(["forge", "unasked", "unasked"] as const),
      from,
      to,
      as: random.below(stations.length),
      sourcePort: random.pick(SIM_PORTS),
      port: random.chance(0.5) ? port : 40_000 + random.below(8),
      answer: random.pick(["syn-ack", "ack", "reset", "echo-reply", "icmp-error"] as const),
    };
  }
  const insists = random.chance(stations[from]!.isHostile ? 0.5 : 0.25);
  return {
    kind: random.pick(["udp", "udp", "tcp", "tcp", "echo", "fragments"] as const),
    from,
    to,
    address: random.below(12),
    sourcePort,
    port,
    count: insists ? 5 + random.below(50) : random.chance(0.03) ? 200 : 1 + random.below(4),
    everyMs: insists ? random.pick([300, 1_000, 3_000]) : 0,
    hops: random.below(insists ? 2 : 6),
  };
}

function drawEvent(random: SeededRandom, kind: EventKind, atMs: number, stations: readonly StationPlan[]): DrawnStep {
  const station = random.below(stations.length);
  const other = (station + 1 + random.below(stations.length - 1)) % stations.length;
  switch (kind) {
    case "faults":
      return { kind, faults: drawFaults(random) };
    case "cut":
      return { kind, from: station, to: other, forMs: 1_000 + random.below(40_000) };
    case "one-way-loss":
      return { kind, from: station, to: other, loss: random.pick([0.3, 0.7, 1]), forMs: 5_000 + random.below(60_000) };
    case "partition": {
      const apart = stations.flatMap((_, number) => (number === station || random.chance(0.4) ? [number] : []));
      // Longer than an end goes on trying to make a tunnel, now and then.
      const forMs = 2_000 + random.below(random.chance(0.3) ? 150_000 : 30_000);
      return { kind, stations: apart, isFromCoordinator: random.chance(0.5), forMs };
    }
    case "control-cut":
      return { kind, station, forMs: 1_000 + random.below(120_000) };
    case "clock":
      return { kind, station, byMs: random.pick(CLOCK_STEPS_MS) };
    case "churn":
      return {
        kind,
        document: drawDocument(random, atMs),
        times: 3 + random.below(15),
        everyMs: 20 + random.below(300),
      };
    case "rebind":
      return { kind, station, knownAfterMs: random.below(20_000) };
    case "crash":
      return {
        kind,
        station,
        forMs: random.below(20_000),
        clockByMs: random.chance(0.3) ? random.pick(CLOCK_STEPS_MS) : 0,
      };
    case "freeze":
      return { kind, station, forMs: random.below(60_000) };
    case "garbage":
      return { kind, to: station, type: random.below(6), bytes: random.below(200) };
    case "policy":
      return { kind, document: drawDocument(random, atMs) };
    case "epoch":
      return { kind };
    case "rotate-key":
    case "revoke":
    case "remove":
    case "enrol":
      return { kind, station };
  }
}

/** When the last of what it does to the policy is done; what it does to the network ends with the faults. */
export function stepEndMs(step: Step): number {
  return step.kind === "churn" ? step.atMs + step.times * step.everyMs : step.atMs;
}

/** One line, for people. */
export function shownStep(step: Step, startMs: number): string {
  const { atMs, kind, ...rest } = step;
  return `${((atMs - startMs) / 1000).toFixed(3).padStart(9)} s ${kind} ${JSON.stringify(rest)}`;
}

/** For documents that name whole networks. */
export function shownPrefix({ address, bits }: Prefix): string {
  return `${formatAddress(address)}/${bits}`;
}
