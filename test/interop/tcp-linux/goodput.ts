// Runs in a namespace of its own: how fast bytes come over a lossy wire, one connection and direction at a time.
// One end is the kernel of this namespace; the other the userspace stack, or for comparison the kernel of a third
// namespace behind a second TUN device, over the very same wire. Prints one line of JSON.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { fileURLToPath } from "node:url";
import type { PlainTun } from "../plain-tun.ts";
import { blocks, hashOf, hashOfBlocks, pair, pourInto } from "./ends.ts";
import { type Faults, Wire } from "./wire.ts";
import { ip, lossRules, nftIn, STACK, tunIn, World, type WorldSpec } from "./world.ts";

export interface GoodputSpec extends WorldSpec {
  /** The other kernel's namespace; without it the other end is the stack. */
  readonly far?: string;
  readonly bytes: number;
  readonly runs: number;
}

export interface GoodputOutcome {
  /** Bytes a second; "up" is from this namespace's kernel to the other end. */
  readonly up: readonly number[];
  readonly down: readonly number[];
  readonly whole: boolean;
}

/** Two TUN devices and the wire between them: what World is for the stack. */
class Bridge {
  readonly #near: PlainTun;
  readonly #far: PlainTun;
  readonly #wire: Wire;
  readonly #packet = new Uint8Array(65_536);

  constructor(spec: WorldSpec & { far: string }, faults: Faults) {
    this.#near = tunIn(spec.router, "wbtun0");
    this.#far = tunIn(spec.far, "wbtun1", { v4: `${STACK.v4}/24`, v6: `${STACK.v6}/64` });
    ip("-n", spec.far, "route", "add", "default", "dev", "wbtun1", "congctl", "cubic");
    this.#wire = new Wire(
      spec.seed,
      faults,
      (to, bytes) => void (to === "stack" ? this.#far : this.#near).write(bytes),
    );
    nftIn(spec.router, lossRules(spec.lossPercent));
  }

  start(): void {
    this.#pump();
  }

  #pump(): void {
    let count = 0;
    for (const [tun, to] of [[this.#near, "stack"] as const, [this.#far, "kernel"] as const]) {
      for (let n = 0; n < 64; n++) {
        const length = tun.read(this.#packet);
        if (length === 0) break;
        this.#wire.carry(performance.now(), to, this.#packet.slice(0, length));
        count++;
      }
    }
    this.#wire.run(performance.now());
    if (count > 0) setImmediate(() => this.#pump());
    else setTimeout(() => this.#pump(), 1);
  }
}

async function withStack(spec: GoodputSpec): Promise<GoodputOutcome> {
  const world = new World(spec);
  const up: number[] = [];
  const down: number[] = [];
  let whole = true;
  const expected = hashOfBlocks(spec.bytes, 1);
  for (let n = 0; n < spec.runs; n++) {
    const first = await pair(world, "v4", "kernel", 7_600 + 2 * n);
    let startedMs = performance.now();
    void pourInto(first.socket, blocks(spec.bytes, 1));
    whole &&= (await first.end.ended.promise) === expected;
    up.push((spec.bytes / (performance.now() - startedMs)) * 1_000);
    first.end.connection.end(world.nowMs());
    const second = await pair(world, "v4", "kernel", 7_601 + 2 * n);
    startedMs = performance.now();
    second.end.pour(blocks(spec.bytes, 1));
    whole &&= (await hashOf(second.socket)) === expected;
    down.push((spec.bytes / (performance.now() - startedMs)) * 1_000);
    second.socket.end();
  }
  world.stop();
  return { up, down, whole };
}

async function withKernel(spec: GoodputSpec & { far: string }): Promise<GoodputOutcome> {
  new Bridge(spec, spec.faults).start();
  const script = fileURLToPath(new URL("./far-end.ts", import.meta.url));
  const args = ["netns", "exec", spec.far, process.execPath, script, String(spec.bytes)];
  const far = spawn("ip", args, { stdio: ["pipe", "pipe", "inherit"] });
  await once(far.stdout, "data"); // "listening"
  const expected = hashOfBlocks(spec.bytes, 1);
  const up: number[] = [];
  const down: number[] = [];
  let whole = true;
  for (let n = 0; n < spec.runs; n++) {
    const first = connect({ host: STACK.v4, port: 7_700, allowHalfOpen: true });
    await once(first, "connect");
    let startedMs = performance.now();
    const told = once(far.stdout, "data") as Promise<[Buffer]>;
    void pourInto(first, blocks(spec.bytes, 1));
    whole &&= (await told)[0].toString().trim() === expected;
    up.push((spec.bytes / (performance.now() - startedMs)) * 1_000);
    const second = connect({ host: STACK.v4, port: 7_701, allowHalfOpen: true });
    await once(second, "connect");
    startedMs = performance.now();
    whole &&= (await hashOf(second)) === expected;
    down.push((spec.bytes / (performance.now() - startedMs)) * 1_000);
    second.end();
  }
  far.stdin.end();
  return { up, down, whole };
}

const spec = JSON.parse(process.argv[2] ?? "") as GoodputSpec;
const { far } = spec;
const outcome = await (far === undefined ? withStack(spec) : withKernel({ ...spec, far }));
console.log(JSON.stringify(outcome));
process.exit(0);
