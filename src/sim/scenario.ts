// What is to happen in one run, as data drawn from a seed: who there is, and steps in order of time. As data it can be
// shown, cut down and run again.
import { formatAddress, makeAddress, makePrefix, makeV4, type Prefix } from "../base/address.ts";
import { SeededRandom } from "../base/random.ts";
import { SECOND_MS } from "../base/units.ts";
import type { PolicyDocument } from "../policy/schema.ts";
import type { WorldIdentity } from "../policy/world.ts";
import { drawDocument, SIM_PORTS, SIM_ROUTES, SIM_SERVICES } from "./documents.ts";
import type { NetworkFaults } from "./network.ts";
import type { StationPlan } from "./station.ts";

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
  | { readonly kind: "control-cut"; readonly station: number; readonly forMs: number }
  | { readonly kind: "rebind"; readonly station: number; readonly knownAfterMs: number }
  | { readonly kind: "crash"; readonly station: number; readonly forMs: number }
  | { readonly kind: "freeze"; readonly station: number; readonly forMs: number }
  | { readonly kind: "rotate-key"; readonly station: number }
  | { readonly kind: "policy"; readonly document: PolicyDocument }
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
  readonly steps: readonly Step[];
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
  for (let number = 0; number < count; number++) stations.push(drawStation(random, identities, number));
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
    steps,
  };
}

function drawStation(random: SeededRandom, identities: readonly WorldIdentity[], number: number): StationPlan {
  // The first ones are an agent, a gateway and somebody else; later ones may be further sessions of the same identity.
  const identity = number < 3 ? identities[number]! : random.pick(identities);
  const isNode = identity.kind === "node";
  return {
    identity: identity.name,
    wantsV4: identity.kind !== "agent" || random.chance(0.3),
    offeredRoutes: isNode ? SIM_ROUTES.filter(() => random.chance(0.7)) : [],
    offeredServices: isNode ? (random.chance(0.5) ? ["*"] : SIM_SERVICES.filter(() => random.chance(0.7))) : [],
    skewMs: random.pick([0, 0, 500, -90_000, 86_400_000]),
    clockErrorMs: random.below(101) - 50,
    controlDelayMs: random.pick([20, 300, 3_000]),
    isBehindNat: random.chance(0.3),
    isHostile: random.chance(0.25),
  };
}

const CALM: NetworkFaults = { loss: 0.01, duplicate: 0.02, corrupt: 0.005, replay: 0.02, delayMs: 15, jitterMs: 10 };

function drawFaults(random: SeededRandom): NetworkFaults {
  if (random.chance(0.3)) return CALM;
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

function drawSteps(random: SeededRandom, startMs: number, stations: readonly StationPlan[]): Step[] {
  const steps: Step[] = [{ atMs: startMs, kind: "faults", faults: CALM }];
  let atMs = startMs + 2 * SECOND_MS;
  const count = 60 + random.below(60);
  for (let i = 0; i < count; i++) {
    atMs += random.chance(0.05) ? 30_000 + random.below(120_000) : random.below(2_500);
    const step = random.chance(0.72) ? drawTraffic(random, stations) : drawEvent(random, atMs, stations);
    steps.push({ atMs, ...step } as Step);
  }
  return steps;
}

function drawTraffic(random: SeededRandom, stations: readonly StationPlan[]): DrawnStep {
  const from = random.below(stations.length);
  const to = (from + 1 + random.below(stations.length - 1)) % stations.length;
  const sourcePort = random.chance(0.7) ? 40_000 + random.below(8) : random.pick(SIM_PORTS);
  const port = random.pick(SIM_PORTS);
  if (stations[from]!.isHostile && random.chance(0.4)) {
    return {
      kind: random.pick(["forge", "unasked"] as const),
      from,
      to,
      as: random.below(stations.length),
      sourcePort: random.pick(SIM_PORTS),
      port: random.chance(0.5) ? port : 40_000 + random.below(8),
      answer: random.pick(["syn-ack", "ack", "reset", "echo-reply", "icmp-error"] as const),
    };
  }
  return {
    kind: random.pick(["udp", "udp", "tcp", "tcp", "echo", "fragments"] as const),
    from,
    to,
    address: random.below(12),
    sourcePort,
    port,
    count: random.chance(0.04) ? 200 : 1 + random.below(4),
    hops: random.below(6),
  };
}

function drawEvent(random: SeededRandom, atMs: number, stations: readonly StationPlan[]): DrawnStep {
  const station = random.below(stations.length);
  const other = (station + 1 + random.below(stations.length - 1)) % stations.length;
  switch (random.below(22)) {
    case 0:
    case 1:
    case 2:
      return { kind: "faults", faults: drawFaults(random) };
    case 3:
    case 4:
      return { kind: "cut", from: station, to: other, forMs: 1_000 + random.below(40_000) };
    case 5:
    case 6:
      return { kind: "control-cut", station, forMs: 1_000 + random.below(90_000) };
    case 7:
    case 8:
    case 9:
      return { kind: "rebind", station, knownAfterMs: random.below(20_000) };
    case 10:
    case 11:
      return { kind: "crash", station, forMs: random.below(20_000) };
    case 12:
      return { kind: "freeze", station, forMs: random.below(60_000) };
    case 13:
      return { kind: "rotate-key", station };
    case 14:
      return { kind: "revoke", station };
    case 15:
      return { kind: "remove", station };
    case 16:
      return { kind: "enrol", station };
    case 17:
      return random.chance(0.3) ? { kind: "epoch" } : { kind: "enrol", station };
    case 18:
      return { kind: "garbage", to: station, type: random.below(6), bytes: random.below(200) };
    default:
      return { kind: "policy", document: drawDocument(random, atMs) };
  }
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
