import { describe, expect, test } from "vitest";
import { FLOW_IDLE_UDP_MS, FLOWS_ENDED_PER_TURN_MAX, FLOWS_PER_SESSION_MAX } from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { FlowIndex } from "../../src/filter/flow-index.ts";
import { KEY_WORDS } from "../../src/filter/flow-key.ts";
import { FlowPages, PAGE_ROWS, WHEEL_PLACE, wordsAt } from "../../src/filter/flow-pages.ts";
import { FlowTable } from "../../src/filter/flow-table.ts";
import type { CompiledRule } from "../../src/filter/rules.ts";
import { TCP_FIN, TCP_SYN } from "../../src/wire/packet.ts";
import { Bench, back, LOCAL, packet, rule, state, tcp } from "./packets.ts";

const FLOW = packet({ protocol: "udp", from: "fd00::9", sourcePort: 9, to: "fd00::1", destinationPort: 53 });
const NO_BYTES = new Uint8Array(0);

/** The i-th flow of a session: one source address each, so that ports never run out. */
function open(b: Bench, session: string, i: number, nowMs = i): boolean {
  FLOW.source2 = i;
  return b.filter.judgeInbound(nowMs, b.filter.slot(session), FLOW, NO_BYTES, 0).allowed;
}

function bench(flows: FlowTable | undefined, ...sessions: string[]): Bench {
  const b = new Bench(flows);
  for (const session of sessions) b.admit(session);
  b.filter.apply(0, state(1, { inbound: [rule("all", "fd00::1", "udp", { sessions })] }));
  return b;
}

function countOf(b: Bench, session: string): number {
  return b.filter.flows(1e6).filter((flow) => flow.session === session).length;
}

describe("limits", () => {
  test("at its own limit a session gives one of its own flows for a new one, and nobody else's", () => {
    const b = bench(undefined, "s_a", "s_b");
    for (let i = 0; i < 100; i++) open(b, "s_b", i, 0);
    for (let i = 0; i < FLOWS_PER_SESSION_MAX; i++) open(b, "s_a", i, 1);
    expect(b.ended).toEqual([]);
    expect(open(b, "s_a", FLOWS_PER_SESSION_MAX, 2)).toBe(true);
    expect(b.ended.map((flow) => [flow.session, flow.end])).toEqual([["s_a", "evicted"]]);
    expect(b.filter.flowCount).toBe(FLOWS_PER_SESSION_MAX + 100);
    expect(countOf(b, "s_b")).toBe(100);
  });

  test("in a full table whoever holds more than an equal share makes room: a newcomer is never shut out", () => {
    const b = bench(new FlowTable(new SeededRandom(1), 100, 80), "s_a", "s_b", "s_c");
    for (let i = 0; i < 80; i++) open(b, "s_a", i);
    for (let i = 0; i < 20; i++) open(b, "s_b", i);
    expect(b.ended).toEqual([]);
    for (let i = 0; i < 200; i++) expect(open(b, "s_c", i)).toBe(true);
    expect(b.filter.flowCount).toBe(100);
    expect(countOf(b, "s_b")).toBe(20); // within its share of a third: never touched
    expect(countOf(b, "s_a")).toBeLessThan(50);
    expect(new Set(b.ended.map((flow) => flow.session))).toEqual(new Set(["s_a", "s_c"]));
  });

  test("more sessions than places: the table still holds its limit and every new flow gets in", () => {
    const sessions = Array.from({ length: 9 }, (_, i) => `s_${i}`);
    const b = bench(new FlowTable(new SeededRandom(1), 4, 4), ...sessions);
    for (let i = 0; i < 100; i++) {
      expect(open(b, sessions[i % 9]!, i)).toBe(true);
      expect(b.filter.flowCount).toBeLessThanOrEqual(4);
    }
  });

  test("what goes is unused for long: a flow that is used all the time stays", () => {
    const b = bench(new FlowTable(new SeededRandom(1), 100, 50), "s_a");
    open(b, "s_a", 0);
    for (let i = 1; i < 1_000; i++) {
      open(b, "s_a", i, i);
      open(b, "s_a", 0, i);
    }
    expect(b.ended.some((flow) => flow.startedMs === 0 && flow.bytesIn > 60)).toBe(false);
  });
});

test("what is closed goes before an open flow that was unused for longer", () => {
  const b = new Bench(new FlowTable(new SeededRandom(1), 100, 50));
  b.filter.apply(0, state(1, { inbound: [rule("all", LOCAL, "tcp")] }));
  b.in(0, tcp(TCP_SYN, 22, 1));
  b.out(0, back(tcp(TCP_SYN, 22, 1)));
  for (let port = 2; port < 1_000; port++) {
    b.in(port, tcp(TCP_SYN, 80, port));
    b.in(port, tcp(TCP_FIN, 80, port));
    b.out(port, back(tcp(TCP_FIN, 80, port)));
  }
  expect(b.ended).toHaveLength(949);
  expect(b.ended.some((flow) => flow.destinationPort === 22)).toBe(false);
});

test("one turn ends so many idle flows and no more: the others are due at once", () => {
  const b = bench(undefined, "s_a");
  for (let i = 0; i <= FLOWS_ENDED_PER_TURN_MAX; i++) open(b, "s_a", i, 0);
  b.filter.expire(FLOW_IDLE_UDP_MS);
  expect(b.filter.flowCount).toBe(1);
  expect(b.filter.nextDeadlineMs()).toBeLessThanOrEqual(FLOW_IDLE_UDP_MS);
  b.filter.expire(FLOW_IDLE_UDP_MS);
  expect(b.filter.flowCount).toBe(0);
  expect(b.ended).toHaveLength(FLOWS_ENDED_PER_TURN_MAX + 1);
});

describe("memory", () => {
  test("is taken a page at a time, and given back when the flows have ended", () => {
    const table = new FlowTable(new SeededRandom(1));
    const b = bench(table, "s_a", "s_b");
    for (let i = 0; i < PAGE_ROWS; i++) open(b, "s_a", i, 0);
    expect(table.pages).toBe(1);
    open(b, "s_b", 0, 0);
    for (let i = 0; i < 2 * PAGE_ROWS; i++) open(b, "s_a", PAGE_ROWS + i, 0);
    expect(table.pages).toBe(4);
    b.filter.forgetSession("s_a");
    expect(table.pages).toBe(1);
    expect(b.filter.flows(1e6)).toHaveLength(1);
    b.admit("s_a");
    for (let i = 0; i < 3 * PAGE_ROWS; i++) open(b, "s_a", i, 1);
    expect(table.pages).toBe(4);
    expect(b.filter.flowCount).toBe(3 * PAGE_ROWS + 1);
    b.filter.forgetSession("s_a");
    b.filter.forgetSession("s_b");
    expect(table.pages).toBe(1); // the last is kept for whoever comes
  });

  test("a rule that no flow lives by any more is not held on to", () => {
    const pages = new FlowPages();
    const rules = ["a", "b", "c"].map((id) => ({ id, flows: 0, number: 0 }) as CompiledRule);
    const [a, b, c] = rules as [CompiledRule, CompiledRule, CompiledRule];
    const rows = [pages.take(a), pages.take(a), pages.take(b)] as const;
    expect(rows.map((row) => pages.rule(row))).toEqual([a, a, b]);
    pages.changeRule(rows[0], b);
    pages.changeRule(rows[2], b);
    expect(rules.map((one) => one.flows)).toEqual([1, 2, 0]);
    pages.give(rows[1]);
    expect(pages.take(c)).toBe(rows[1]);
    expect(c.number).toBe(0); // the place that `a` had
    expect(rows.map((row) => pages.rule(row))).toEqual([b, c, b]);
  });
});

describe("index", () => {
  const NO_RULE = { flows: 0, number: 0 } as CompiledRule;
  const make = (seed: number): { pages: FlowPages; index: FlowIndex; add: (key: Int32Array) => number } => {
    const pages = new FlowPages();
    const index = new FlowIndex(pages, new SeededRandom(seed));
    const add = (key: Int32Array): number => {
      const row = pages.take(NO_RULE);
      index.add(row, key);
      pages.of(row).words[wordsAt(row) + WHEEL_PLACE] = 1;
      return row;
    };
    return { pages, index, add };
  };

  test("agrees with a map while it grows, under keys that differ in one word", () => {
    const { pages, index, add } = make(5);
    const random = new SeededRandom(6);
    const rows = new Map<string, number>();
    const key = new Int32Array(KEY_WORDS);
    for (let step = 0; step < 20_000; step++) {
      key.fill(0);
      key[random.below(KEY_WORDS)] = random.chance(0.5) ? random.below(600) : random.below(600) << 20;
      const text = key.join();
      const row = rows.get(text);
      expect(index.find(key)).toBe(row ?? -1);
      if (row === undefined) rows.set(text, add(key));
      else if (random.chance(0.3)) {
        index.remove(row);
        pages.give(row);
        rows.delete(text);
        expect(index.find(key)).toBe(-1);
      }
    }
    expect(rows.size).toBeGreaterThan(2_000);
  });

  test("keys as senders choose them, one counted up, share no long chain, whatever word it is", () => {
    for (let word = 0; word < KEY_WORDS; word++) {
      for (const shift of [0, 16]) {
        const { index, add } = make(word + 1);
        const key = new Int32Array(KEY_WORDS);
        for (let i = 0; i < 5_000; i++) {
          key[word] = i << shift;
          add(key);
        }
        const lengths = index.chainLengths();
        expect(lengths.length).toBe(5_000);
        expect(lengths.reduce((sum, length) => sum + length)).toBe(5_000);
        expect(Math.max(...lengths), `word ${word} << ${shift}`).toBeLessThanOrEqual(16);
      }
    }
  });
});

test("holds its lists together under random opening, ending and growth", () => {
  const b = bench(new FlowTable(new SeededRandom(3), 1_500, 1_000), "s_a", "s_b", "s_c");
  const random = new SeededRandom(9);
  let nowMs = 0;
  for (let step = 0; step < 30_000; step++) {
    nowMs += random.below(40);
    const session = random.pick(["s_a", "s_b", "s_c"]);
    if (random.chance(0.0005)) {
      b.filter.forgetSession(session);
      b.admit(session);
    } else open(b, session, random.below(4_000), nowMs);
    if (random.chance(0.02)) b.filter.expire(nowMs);
  }
  const flows = b.filter.flows(1e6);
  expect(flows.length).toBe(b.filter.flowCount);
  expect(flows.length).toBeGreaterThan(1_000);
  b.filter.expire(nowMs + 1e6);
  expect(b.filter.flowCount).toBe(0);
  expect(new Set(b.ended.map((flow) => flow.end))).toEqual(new Set(["idle", "forgotten", "evicted"]));
});
