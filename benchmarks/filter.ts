// The filter alone: packets of known flows and new flows, under few and many rules, with few and many flows; what a
// revision of many rules costs; how long the worst packet waits while the table grows; what a flow takes of memory.

import { parseAddress } from "../src/base/address.ts";
import { SeededRandom } from "../src/base/random.ts";
import type { AddressRule, FilterState } from "../src/filter/contract.ts";
import { Filter } from "../src/filter/filter.ts";
import { PacketInfo, PROTOCOL_UDP } from "../src/wire/packet.ts";
import { type BenchResult, measureRate } from "./result.ts";

const SESSIONS = 32;
const FOREVER_MS = 1e15;
const OWN = parseAddress("fd00:77::1")!;
const ELSEWHERE = parseAddress("fd00:99::")!;
const NO_BYTES = new Uint8Array(0);
const BATCH = 4_096;
const RUNS = 3;

/** A filter of one peer with 32 others, one of whose rules opens all flows that `open` makes. */
export class FilterLoad {
  readonly filter = new Filter({ random: new SeededRandom(1) });
  readonly #state: FilterState;
  readonly #slots: number[] = [];
  readonly #info = new PacketInfo();
  readonly #random = new SeededRandom(2);
  #flows = 0;
  #revision = 0;

  constructor(options: { readonly rules: number }) {
    const sessions = Array.from({ length: SESSIONS }, (_, i) => `s_${i}`);
    const inbound = Array.from(
      { length: options.rules },
      (_, i): AddressRule => ({
        id: `g_${i}`,
        action: "allow",
        sessions,
        to: { address: i === 0 ? OWN : { ...ELSEWHERE, w3: i }, bits: 128 },
        protocol: "udp",
        ports: [],
      }),
    );
    this.#state = {
      revision: 0,
      policyVersion: 0,
      inbound,
      outbound: [],
      inboundHosts: [],
      outboundHosts: [],
      revoked: [],
    };
    this.filter.setOwnLease(FOREVER_MS);
    for (const session of sessions) {
      const slot = this.filter.slot(session);
      this.filter.setRemoteLease(slot, FOREVER_MS);
      this.#slots.push(slot);
    }
    const { w0, w1, w2, w3 } = OWN;
    Object.assign(this.#info, { version: 6, totalBytes: 1_420, transportOffset: 40, protocol: PROTOCOL_UDP });
    Object.assign(this.#info, { destination0: w0, destination1: w1, destination2: w2, destination3: w3 });
    Object.assign(this.#info, { source0: 0xfd000077, destinationPort: 53 });
    this.apply();
  }

  /** The same rules as another revision. */
  apply(): void {
    this.#revision++;
    this.filter.apply(0, { ...this.#state, revision: this.#revision });
  }

  #judge(flow: number): void {
    const info = this.#info;
    info.source3 = flow >>> 5;
    info.sourcePort = 1_024 + ((flow >>> 5) % 60_000);
    this.filter.judgeInbound(0, this.#slots[flow & (SESSIONS - 1)]!, info, NO_BYTES, 0);
  }

  /** Flows that were not there before. */
  open(count: number): void {
    for (let i = 0; i < count; i++) this.#judge(this.#flows++);
  }

  /** Packets of flows that are there, in no order. */
  pass(count: number): void {
    for (let i = 0; i < count; i++) this.#judge(this.#flows === 1 ? 0 : this.#random.below(this.#flows));
  }

  /** All flows begin anew. */
  forget(): void {
    for (let i = 0; i < SESSIONS; i++) {
      this.filter.forgetSession(`s_${i}`);
      this.filter.setRemoteLease(this.filter.slot(`s_${i}`), FOREVER_MS);
      this.#slots[i] = this.filter.slot(`s_${i}`);
    }
    this.#flows = 0;
  }
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/** Medians of a few runs of each, by turns. */
function interleaved<K>(keys: readonly K[], measure: (key: K) => number): Map<K, number> {
  const found = new Map(keys.map((key) => [key, [] as number[]]));
  for (let run = 0; run < RUNS; run++) for (const key of keys) found.get(key)!.push(measure(key));
  return new Map([...found].map(([key, values]) => [key, median(values)]));
}

/** About half a minute of CPU time. */
export function run(): BenchResult[] {
  const results: BenchResult[] = [];
  const name = (count: number): string => count.toLocaleString("en");
  const rate = (work: () => void): number => measureRate(work, 400) * BATCH;

  const byRules = new Map([1, 1_000, 100_000].map((rules) => [rules, new FilterLoad({ rules })]));
  for (const load of byRules.values()) load.open(1);
  for (const [rules, value] of interleaved([...byRules.keys()], (key) => rate(() => byRules.get(key)!.pass(BATCH)))) {
    results.push({ name: `filter: packets of a known flow, ${name(rules)} rules`, value, unit: "1/s" });
  }
  const opened = interleaved([...byRules.keys()], (key) => {
    byRules.get(key)!.forget();
    return rate(() => byRules.get(key)!.open(BATCH));
  });
  for (const [rules, value] of opened) {
    results.push({ name: `filter: new flows, ${name(rules)} rules`, value, unit: "1/s" });
  }

  const byFlows = new Map([1, 100_000, 1_000_000].map((flows) => [flows, new FilterLoad({ rules: 1 })]));
  let worstMs = 0;
  let bytes = 0;
  for (const [flows, load] of byFlows) {
    const before = process.memoryUsage();
    for (let i = 0; i < flows; i++) {
      const startedMs = performance.now();
      load.open(1);
      worstMs = Math.max(worstMs, performance.now() - startedMs);
    }
    const after = process.memoryUsage();
    bytes = (after.heapUsed + after.external - before.heapUsed - before.external) / flows;
  }
  for (const [flows, value] of interleaved([...byFlows.keys()], (key) => rate(() => byFlows.get(key)!.pass(BATCH)))) {
    results.push({ name: `filter: packets of ${name(flows)} known flows, in no order`, value, unit: "1/s" });
  }
  results.push({ name: "filter: memory of one of 1,000,000 flows", value: bytes, unit: "bytes" });
  results.push({ name: "filter: longest wait of a packet while 1,000,000 flows open", value: worstMs, unit: "ms" });

  const many = byRules.get(100_000)!;
  const revision = Array.from({ length: 5 }, () => {
    const startedMs = performance.now();
    many.apply();
    const appliedMs = performance.now();
    many.open(1);
    return [appliedMs - startedMs, performance.now() - appliedMs] as const;
  });
  const unit = "ms";
  results.push(
    { name: "filter: a revision of 100,000 rules, taken in", value: median(revision.map(([taken]) => taken)), unit },
    { name: "filter: the first packet of a session after it", value: median(revision.map(([, first]) => first)), unit },
  );
  return results;
}
