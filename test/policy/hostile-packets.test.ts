// The filter of a destination against the oracle, packet by packet, as bytes: extension headers, fragments, packets in
// packets, ICMP errors, cut and mutated ones. What a packet asks for is read by the naive reader, which shares nothing
// with src/wire; what it may open is the oracle's word.
import { expect, test } from "vitest";
import { type Address, isV4 } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import type { FilterProtocol } from "../../src/filter/contract.ts";
import { Filter } from "../../src/filter/filter.ts";
import { evaluate } from "../../src/policy/evaluate.ts";
import type { Policy } from "../../src/policy/policy.ts";
import type { World } from "../../src/policy/world.ts";
import { decodePacket, PacketInfo, TCP_ACK, TCP_SYN } from "../../src/wire/packet.ts";
import { mutate } from "../fuzz/mutate.ts";
import { type NaivePacket, readNaively } from "../fuzz/naive-packet.ts";
import {
  type Ends,
  fragmentHeader,
  randomChain,
  randomPacket,
  repairPacket,
  transportOf,
  v4Packet,
  v6Packet,
} from "../fuzz/packet-maker.ts";
import { record } from "../proof/form.ts";
import { compilerOf } from "./named-world.ts";
import { randomPolicy, randomTarget, randomWorld } from "./random-world.ts";

const PACKETS_PER_WORLD = 100;
const PORTS = [5432, 80, 1, 53, 51_822];
const NOW_MS = 0;

type Kind = "plain" | "chain" | "first fragment" | "later fragment" | "in a packet" | "ICMP error" | "cut" | "mutated";
const KINDS: readonly Kind[] = ["plain", "chain", "first fragment", "later fragment", "in a packet", "ICMP error"];

const addressOf = ([w0, w1, w2, w3]: readonly number[]): Address => ({ w0: w0!, w1: w1!, w2: w2!, w3: w3! });

function classOf({ version, protocol }: NaivePacket): FilterProtocol {
  if (protocol === 6) return "tcp";
  if (protocol === 17) return "udp";
  return protocol === (version === 4 ? 1 : 58) ? "icmp" : "any";
}

function flowKey(
  from: string,
  protocol: number,
  source: readonly number[],
  destination: readonly number[],
  ports: { readonly sourcePort: number; readonly destinationPort: number },
): string {
  return [from, protocol, ...source, ...destination, ports.sourcePort, ports.destinationPort].join();
}

/** What the destination's filter must say, kept in plain lists. */
class Model {
  readonly #policy: Policy;
  readonly #world: World;
  readonly #at: string;
  /** Allowed first fragments. */
  readonly #fragments = new Set<string>();
  /** By who opened them: those without ports come again. */
  readonly #flows = new Set<string>();

  constructor(policy: Policy, world: World, at: string) {
    this.#policy = policy;
    this.#world = world;
    this.#at = at;
  }

  /** `from` opens it, as nothing went before. */
  allows(from: string, bytes: Uint8Array): boolean {
    const read = readNaively(bytes);
    if (read === undefined) return false;
    if (read.quoteAt !== undefined) return this.#isAboutFlow(from, read, bytes);
    const { fragment } = read;
    const key = [from, read.protocol, fragment?.id, ...read.source, ...read.destination].join();
    if (fragment !== undefined && fragment.offsetBytes > 0) return this.#fragments.has(key);
    const echoReply = read.protocol === 1 ? 0 : 129; // of its family: 0 in ICMPv6 is no answer
    if (classOf(read) === "icmp" && read.icmpType === echoReply) return false; // to no question
    const hasPorts = read.protocol === 6 || read.protocol === 17;
    const to = addressOf(read.destination);
    const asked = { from, at: this.#at, to, protocol: classOf(read), port: hasPorts ? read.destinationPort : 0 };
    const { allowed } = evaluate(this.#policy, this.#world, asked, NOW_MS);
    if (allowed && fragment !== undefined) this.#fragments.add(key);
    if (allowed) this.#flows.add(flowKey(from, read.protocol, read.source, read.destination, read));
    return allowed;
  }

  /** An error passes when it is told to who sent the packet that it is about, an answer within an allowed flow. */
  #isAboutFlow(from: string, read: NaivePacket, bytes: Uint8Array): boolean {
    const inner = readNaively(bytes.subarray(read.quoteAt, read.totalBytes), true);
    if (inner === undefined || (inner.fragment?.offsetBytes ?? 0) > 0) return false;
    const { sourcePort: destinationPort, destinationPort: sourcePort, protocol } = inner;
    const ports = { sourcePort, destinationPort };
    const isToSender = inner.source.join() === read.destination.join();
    return isToSender && this.#flows.has(flowKey(from, protocol, inner.destination, inner.source, ports));
  }
}

class Packets {
  readonly #random: SeededRandom;
  readonly counts = new Map<string, number>();
  #id = 1;

  constructor(random: SeededRandom) {
    this.#random = random;
  }

  /** A port of its own for each, so that none is a packet of another's flow. */
  #transport(version: 4 | 6, sourcePort: number, body?: Uint8Array): { protocol: number; bytes: Uint8Array } {
    const random = this.#random;
    const protocol = random.pick([6, 6, 17, version === 4 ? 1 : 58, 132]);
    const type = version === 4 ? 8 : 128;
    const choice = {
      protocol,
      sourcePort,
      destinationPort: random.pick(PORTS),
      flags: random.pick([TCP_SYN, TCP_ACK]),
      type,
    };
    return { protocol, bytes: transportOf(random, body === undefined ? choice : { ...choice, body }) };
  }

  make(ends: Ends, sourcePort: number): Uint8Array[] {
    const random = this.#random;
    const version = isV4(ends.destination) ? 4 : 6;
    const kind = random.chance(0.8) ? random.pick(KINDS) : random.pick(["cut", "mutated"] as const);
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
    const { protocol, bytes } = this.#transport(version, sourcePort);
    const whole = (chain = random.chance(0.5)): Uint8Array =>
      version === 4
        ? v4Packet(ends, protocol, bytes)
        : v6Packet(ends, protocol, bytes, chain ? randomChain(random, bytes) : []);
    switch (kind) {
      case "plain":
        return [repairPacket(whole(false))];
      case "chain":
        return [repairPacket(whole(true))];
      case "first fragment":
      case "later fragment":
        return this.#fragments(ends, sourcePort, kind === "first fragment");
      case "in a packet": {
        const inner = repairPacket(whole());
        const outer = random.pick([4, 41]);
        return [version === 4 ? v4Packet(ends, outer, inner) : v6Packet(ends, outer, inner)];
      }
      case "ICMP error": {
        const icmp = version === 4 ? 1 : 58;
        const turned = { source: ends.destination, destination: ends.source };
        const about = version === 4 ? v4Packet(turned, protocol, bytes) : v6Packet(turned, protocol, bytes);
        const error = transportOf(random, { protocol: icmp, type: version === 4 ? 3 : 1, body: about });
        return [repairPacket(version === 4 ? v4Packet(ends, icmp, error) : v6Packet(ends, icmp, error))];
      }
      case "cut": {
        const packet = repairPacket(whole());
        return [packet.slice(0, random.below(packet.length + 1))];
      }
      case "mutated": {
        const packet = repairPacket(whole());
        const changed = mutate(packet, random, [packet, randomPacket(random)], [], 2_000);
        return [random.chance(0.7) ? repairPacket(changed) : changed];
      }
    }
  }

  /** Two fragments of one packet, or the later alone. */
  #fragments(ends: Ends, sourcePort: number, withFirst: boolean): Uint8Array[] {
    const version = isV4(ends.destination) ? 4 : 6;
    const { protocol, bytes } = this.#transport(version, sourcePort, new Uint8Array(64));
    const id = this.#id++;
    const cut = (offsetBytes: number, part: Uint8Array, more: boolean): Uint8Array => {
      const fragment = { id, offsetBytes, more };
      if (version === 4) return v4Packet(ends, protocol, part, new Uint8Array(0), fragment);
      return v6Packet(ends, protocol, part, [fragmentHeader(fragment)]);
    };
    const later = cut(40, bytes.slice(40), false);
    return withFirst ? [cut(0, bytes.slice(0, 40), true), later] : [later];
  }
}

interface Compared {
  readonly packets: number;
  readonly allowed: number;
  readonly difference: string | undefined;
}

function compare(
  seed: number,
  kinds: Map<string, number>,
  spoil = (allowed: boolean, _bytes: Uint8Array) => allowed,
): Compared {
  const random = new SeededRandom(seed);
  const policy = randomPolicy(random);
  const world = randomWorld(random);
  const sessions = [...world.sessions.keys()];
  const at = random.pick(sessions);
  const filter = new Filter({ random });
  filter.setOwnLease(1e15);
  for (const other of sessions) filter.setRemoteLease(filter.slot(other), 1e15);
  const compiled = compilerOf(policy, world).compilePeer(at, NOW_MS)!;
  filter.apply(NOW_MS, { ...compiled, revision: 1, policyVersion: policy.version, revoked: [] });
  const model = new Model(policy, world, at);
  const grants = compiled.inbound.filter(({ action, sessions: who }) => action === "allow" && who.length > 0);
  const maker = new Packets(random);
  const info = new PacketInfo();
  let [packets, allowed] = [0, 0];
  for (let i = 0; i < PACKETS_PER_WORLD; i++) {
    const rule = grants.length > 0 && random.chance(0.6) ? random.pick(grants) : undefined;
    const from = random.pick(rule?.sessions ?? sessions.filter((id) => id !== at));
    const target = rule?.to.address ?? randomTarget(random, world, at);
    if (typeof target === "string") continue;
    const source = world.sessions.get(from)!.addresses.find((own) => isV4(own) === isV4(target));
    if (source === undefined) continue;
    for (const bytes of maker.make({ source, destination: target }, 10_000 + i)) {
      const expected = model.allows(from, bytes);
      const drop = decodePacket(bytes, 0, bytes.length, info);
      const verdict = drop === undefined ? filter.judgeInbound(NOW_MS, filter.slot(from), info, bytes, 0) : undefined;
      const got = spoil(verdict?.allowed ?? false, bytes);
      packets++;
      if (got) allowed++;
      if (got === expected) continue;
      const said = `${drop ?? verdict?.reason}, oracle ${expected ? "allows" : "denies"}`;
      return {
        packets,
        allowed,
        difference: `seed ${seed}: ${from} → ${at}: ${Buffer.from(bytes).toString("hex")}: ${said}`,
      };
    }
  }
  for (const [kind, count] of maker.counts) kinds.set(kind, (kinds.get(kind) ?? 0) + count);
  return { packets, allowed, difference: undefined };
}

const PACKETS = Number(process.env["FC_RUNS"] ?? 4_000);

test("the filter says of hostile packets what the oracle says of what they ask for", { timeout: 180_000 }, () => {
  const kinds = new Map<string, number>();
  let [packets, allowed] = [0, 0];
  for (let seed = 1; packets < PACKETS; seed++) {
    const compared = compare(seed, kinds);
    expect(compared.difference).toBeUndefined();
    packets += compared.packets;
    allowed += compared.allowed;
  }
  record({ what: "hostile packets: filter = oracle", count: packets, figure: `${allowed} of them allowed` });
  for (const kind of [...KINDS, "cut", "mutated"]) expect(kinds.get(kind), kind).toBeGreaterThan(PACKETS / 100);
  expect(allowed).toBeGreaterThan(PACKETS / 50);
});

test("a filter that takes an inner packet for the outer one is found out", () => {
  const spoil = (allowed: boolean, bytes: Uint8Array): boolean => {
    const read = readNaively(bytes);
    return read?.protocol === 4 || read?.protocol === 41 ? !allowed : allowed;
  };
  const found = Array.from({ length: 20 }, (_, seed) => compare(seed, new Map(), spoil).difference);
  expect(found.some((difference) => difference !== undefined)).toBe(true);
});
