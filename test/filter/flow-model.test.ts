// The filter against a model of it in plain lists, over random histories: packets of both directions, revisions,
// leases, revocations, time. What the model says is written from the words of the design.
import fc from "fast-check";
import { expect, test } from "vitest";
import { parseAddress, prefixContains } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import type { AddressRule, FilterState } from "../../src/filter/contract.ts";
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from "../../src/wire/packet.ts";
import { Bench, type PacketInput, PROTOCOLS, rule, state } from "./packets.ts";

const REMOTE = "fd00::9";
const LOCAL = "fd00::1";
const SESSIONS = ["s_a", "s_b"];
const PORTS = [1, 2];
const FLAGS = [TCP_SYN, TCP_SYN | TCP_ACK, TCP_ACK, TCP_FIN | TCP_ACK, TCP_RST];

interface ModelFlow {
  opener: "in" | "out";
  lastMs: number;
  answered: boolean;
  fins: Set<string>;
  reset: boolean;
}

class Model {
  state: FilterState = state(0, {});
  readonly leases = new Map<string, number>();
  readonly flows = new Map<string, ModelFlow>();

  allows(direction: "in" | "out", session: string, input: PacketInput, clockMs: number): boolean {
    const all = direction === "in" ? this.state.inbound : this.state.outbound;
    const to = parseAddress(direction === "in" ? LOCAL : REMOTE)!;
    const matching = all.filter(
      (one) =>
        one.sessions.includes(session) &&
        prefixContains(one.to, to) &&
        (one.untilMs === undefined || clockMs < one.untilMs) &&
        (one.protocol === "any" || one.protocol === input.protocol) &&
        (one.ports.length === 0 ||
          one.ports.some(([low, high]) => low <= this.port(direction, input) && this.port(direction, input) <= high)),
    );
    return matching.length > 0 && matching.every((one) => one.action === "allow");
  }

  /** Of the service, if this direction opens; `remote` and `local` ports are in the input as for an inbound packet. */
  port(direction: "in" | "out", input: PacketInput): number {
    return (direction === "in" ? input.destinationPort : input.sourcePort)!;
  }

  isClosed(flow: ModelFlow): boolean {
    return flow.reset || flow.fins.size === 2;
  }

  isIdle(flow: ModelFlow, protocol: string, nowMs: number): boolean {
    const tcpMs = this.isClosed(flow) || !flow.answered ? 60_000 : 7_200_000;
    const idleMs = protocol === "tcp" ? tcpMs : protocol === "icmp" ? 30_000 : 120_000;
    return nowMs - flow.lastMs >= idleMs;
  }

  /** `input` has the ports as seen inbound. */
  packet(nowMs: number, direction: "in" | "out", session: string, input: PacketInput): boolean {
    if (this.state.revoked.includes(session) || nowMs >= this.leases.get(session)!) return false;
    const isReply = input.protocol === "icmp" && input.icmpType === 129;
    const opening = isReply ? (direction === "in" ? "out" : "in") : direction;
    const key = [
      session,
      input.protocol,
      input.sourcePort,
      input.destinationPort,
      input.protocol === "icmp" ? opening : "",
    ].join();
    const isSyn = input.protocol === "tcp" && input.flags === TCP_SYN;
    let flow = this.flows.get(key);
    if (flow !== undefined && this.isIdle(flow, input.protocol, nowMs)) flow = undefined;
    if (flow !== undefined && isSyn && flow.opener !== direction) {
      if (!this.allows(direction, session, input, nowMs)) return false;
      if (!this.isClosed(flow)) return true;
      flow = undefined;
    }
    if (flow !== undefined && !this.allows(flow.opener, session, input, nowMs)) flow = undefined;
    if (flow === undefined) {
      this.flows.delete(key);
      if (isReply || !this.allows(direction, session, input, nowMs)) return false;
      flow = { opener: direction, lastMs: nowMs, answered: false, fins: new Set(), reset: false };
      this.flows.set(key, flow);
    }
    flow.lastMs = nowMs;
    if (flow.opener !== direction) flow.answered = true;
    if (isSyn && this.isClosed(flow)) Object.assign(flow, { answered: false, fins: new Set(), reset: false });
    if (input.protocol === "tcp" && (input.flags! & TCP_FIN) !== 0) flow.fins.add(direction);
    if (input.protocol === "tcp" && (input.flags! & TCP_RST) !== 0) flow.reset = true;
    return true;
  }

  /** What expire does to flows without a packet. */
  expire(nowMs: number): void {
    for (const [key, flow] of this.flows) {
      const [session, protocol, sourcePort, destinationPort] = key.split(",");
      const input = {
        protocol,
        sourcePort: Number(sourcePort),
        destinationPort: Number(destinationPort),
      } as PacketInput;
      const isOver =
        this.state.revoked.includes(session!) ||
        nowMs >= this.leases.get(session!)! ||
        this.isIdle(flow, protocol!, nowMs) ||
        !this.allows(flow.opener, session!, input, nowMs);
      if (isOver) this.flows.delete(key);
    }
  }
}

function randomRule(random: SeededRandom, id: string, to: string, nowMs: number): AddressRule {
  return rule(id, random.pick([to, `${to}/64`]), random.pick(["tcp", "udp", "icmp", "any"] as const), {
    action: random.chance(0.2) ? "deny" : "allow",
    sessions: SESSIONS.filter(() => random.chance(0.7)),
    ...(random.chance(0.3) ? { untilMs: nowMs + random.pick([1_000, 50_000]) } : {}),
  });
}

function withPorts(random: SeededRandom, one: AddressRule): AddressRule {
  const hasPorts = (one.protocol === "tcp" || one.protocol === "udp") && random.chance(0.5);
  return hasPorts ? { ...one, ports: [[1, random.pick([1, 2])]] } : one;
}

/** Undefined when filter and model agreed throughout. `spoil` plants a bug into what the filter is told. */
function history(seed: number, steps: number, spoil: (told: FilterState) => FilterState): string | undefined {
  const random = new SeededRandom(seed);
  const b = new Bench();
  const model = new Model();
  let nowMs = 1_000;
  const lease = (session: string, endMs: number): void => {
    model.leases.set(session, endMs);
    b.filter.setRemoteLease(b.filter.slot(session), endMs);
  };
  for (const session of SESSIONS) lease(session, 1e15);
  for (let step = 0; step < steps; step++) {
    if (step === 0 || random.chance(0.05)) {
      const rules = (name: string, to: string): AddressRule[] =>
        Array.from({ length: random.below(4) }, (_, i) =>
          withPorts(random, randomRule(random, `${name}${i}`, to, nowMs)),
        );
      const revoked = random.chance(0.1) ? [random.pick(SESSIONS)] : [];
      model.state = state(step, { inbound: rules("in", LOCAL), outbound: rules("out", REMOTE), revoked });
      b.filter.apply(nowMs, spoil(model.state));
      for (const key of model.flows.keys()) if (revoked.includes(key.split(",")[0]!)) model.flows.delete(key);
    }
    if (random.chance(0.02)) lease(random.pick(SESSIONS), nowMs + random.pick([500, 1e12]));
    if (random.chance(0.2)) nowMs += random.pick([1_000, 29_999, 30_000, 61_000, 119_999, 7_200_000]);
    if (random.chance(0.3)) {
      b.filter.expire(nowMs);
      model.expire(nowMs);
    }
    const session = random.pick(SESSIONS);
    const direction = random.pick(["in", "out"] as const);
    const protocol = random.pick(Object.keys(PROTOCOLS) as (keyof typeof PROTOCOLS)[]);
    const hasPorts = protocol === "tcp" || protocol === "udp";
    const input: PacketInput = {
      protocol,
      from: REMOTE,
      to: LOCAL,
      sourcePort: hasPorts ? random.pick(PORTS) : protocol === "icmp" ? 7 : 0,
      destinationPort: hasPorts ? random.pick(PORTS) : protocol === "icmp" ? 7 : 0,
      flags: random.pick(FLAGS),
      icmpType: random.pick([128, 129]),
    };
    const expected = model.packet(nowMs, direction, session, input);
    const turned = {
      ...input,
      from: LOCAL,
      to: REMOTE,
      sourcePort: input.destinationPort!,
      destinationPort: input.sourcePort!,
    };
    const verdict = direction === "in" ? b.in(nowMs, input, session) : b.out(nowMs, turned, session);
    if (verdict.allowed !== expected) {
      const asked = `${direction} ${session} ${JSON.stringify(input)}`;
      return `seed ${seed} step ${step}: ${asked}: ${verdict.reason}, not ${expected}`;
    }
  }
  return undefined;
}

const RUNS = Math.ceil(Number(process.env["FC_RUNS"] ?? 2_000) / 100);

test("agrees with a model in plain lists over random histories", { timeout: 180_000 }, () => {
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      expect(history(seed, 300, (told) => told)).toBeUndefined();
    }),
    { seed: 11, numRuns: RUNS },
  );
});

const BUGS: readonly [name: string, spoil: (told: FilterState) => FilterState][] = [
  ["never is ignored", (told) => ({ ...told, inbound: told.inbound.filter((one) => one.action === "allow") })],
  ["`until` is ignored", (told) => ({ ...told, outbound: told.outbound.map(({ untilMs: _, ...one }) => one) })],
  ["revocation is ignored", (told) => ({ ...told, revoked: [] })],
  ["ports are ignored", (told) => ({ ...told, inbound: told.inbound.map((one) => ({ ...one, ports: [] })) })],
  [
    "sessions are ignored",
    (told) => ({ ...told, inbound: told.inbound.map((one) => ({ ...one, sessions: SESSIONS })) }),
  ],
];

for (const [name, spoil] of BUGS) {
  test(`finds a planted bug: ${name}`, () => {
    const found = Array.from({ length: 20 }, (_, seed) => history(seed, 300, spoil)).find((said) => said !== undefined);
    expect(found).toBeDefined();
  });
}
