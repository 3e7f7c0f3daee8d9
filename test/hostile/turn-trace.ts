// Why some turns with handshake work take more than 1 ms of the CPU: V8 may collect what packets left just then, and
// the machine below may stop a virtual CPU while the thread's clock runs on. For the second, each piece of work is
// followed by a control, measured by the same clock: arithmetic that allocates nothing and takes about as long.
import { PerformanceObserver } from "node:perf_hooks";
import { HANDSHAKE_TURN_MS } from "../../src/base/limits.ts";
import { cpuStopwatch } from "../../src/io/clock.ts";
import { HandshakeWork } from "../../src/wireguard/handshake-work.ts";

/** Counters; each piece above HANDSHAKE_TURN_MS is either `collected` or `bare`. */
export interface TurnTrace {
  readonly "trace-pieces": number;
  /** A collection of V8's took place within the piece. */
  readonly "trace-collected": number;
  readonly "trace-bare": number;
  /** Of the controls, as many as pieces. */
  readonly "trace-control": number;
}

/** What a piece of handshake work takes of the CPU on these machines: the control keeps to it. */
const CONTROL_MS = 0.22;
const STEP = 0.01;
const NOTHING_BELOW_MS = 0.2; // two clocks are compared
const OBSERVER_MS = 2_000; // of late news about a collection

interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

function arithmetic(rounds: number): number {
  let value = 1;
  for (let round = 0; round < rounds; round++) value = (Math.imul(value, 1_103_515_245) + 12_345) | 0;
  return value;
}

/** Watches all handshake work of this process from now on. */
export function traceTurns(): () => TurnTrace {
  let collections: Span[] = [];
  let long: Span[] = [];
  let [pieces, collected, bare, control, rounds, sink] = [0, 0, 0, 0, 50_000, 0];
  new PerformanceObserver((list) => {
    for (const { startTime, duration } of list.getEntries()) {
      collections.push({ fromMs: startTime, toMs: startTime + duration });
    }
  }).observe({ entryTypes: ["gc"] });

  const settle = (): void => {
    const beforeMs = performance.now() - OBSERVER_MS;
    for (const piece of long.filter(({ toMs }) => toMs < beforeMs)) {
      const within = collections.map(({ fromMs, toMs }) => Math.min(toMs, piece.toMs) - Math.max(fromMs, piece.fromMs));
      if (within.some((ms) => ms > NOTHING_BELOW_MS)) collected++;
      else bare++;
    }
    long = long.filter(({ toMs }) => toMs >= beforeMs);
    collections = collections.filter(({ toMs }) => toMs >= beforeMs - OBSERVER_MS);
  };
  setInterval(settle, OBSERVER_MS / 4).unref();

  const { begin, end } = HandshakeWork.prototype;
  let [fromMs, cpuFromMs] = [0, 0];
  HandshakeWork.prototype.begin = function (): void {
    begin.call(this);
    fromMs = performance.now();
    cpuFromMs = cpuStopwatch();
  };
  HandshakeWork.prototype.end = function (nowMs): void {
    const cpuMs = cpuStopwatch() - cpuFromMs;
    const toMs = performance.now();
    end.call(this, nowMs);
    pieces++;
    if (cpuMs > HANDSHAKE_TURN_MS) long.push({ fromMs, toMs });
    const controlFromMs = cpuStopwatch();
    sink ^= arithmetic(rounds);
    const controlMs = cpuStopwatch() - controlFromMs;
    if (controlMs > HANDSHAKE_TURN_MS) control++;
    rounds *= controlMs > CONTROL_MS ? 1 - STEP : 1 + STEP;
  };
  return () => {
    if (Number.isNaN(sink)) throw new Error("unreachable: the arithmetic is used, so it is not left out");
    return {
      "trace-pieces": pieces,
      "trace-collected": collected,
      "trace-bare": bare,
      "trace-control": control,
    };
  };
}
