// One process, two TCPs: the userspace stack behind a TUN device, and the kernel's sockets of this namespace. Between
// them lies a second namespace that forwards (and loses, by nftables), and a wire with faults. The process makes the
// device here and moves it there: the file descriptor stays. What passes the stack's end of the wire is captured.
//
//   kernel's sockets ── veth ── router: forward, nftables ── TUN ── wire ── capture ── stack
import { spawnSync } from "node:child_process";
import { type Address, parseAddress } from "../../../src/base/address.ts";
import { SeededRandom } from "../../../src/base/random.ts";
import type { NetstackHandler } from "../../../src/netstack/contract.ts";
import { UserspaceStack, type UserspaceStackOptions } from "../../../src/netstack/stack.ts";
import { PlainTun } from "../plain-tun.ts";
import { Capture } from "./capture.ts";
import { type End, type Faults, Wire } from "./wire.ts";

export const FAMILIES = ["v4", "v6"] as const;
export type Family = (typeof FAMILIES)[number];
export const STACK = { v4: "10.99.0.2", v6: "fd99::2" } as const;
export const KERNEL = { v4: "10.98.0.1", v6: "fd98::1" } as const;
const ROUTER = { v4: "10.99.0.254", v6: "fd99::fe" } as const;
export const MTU_BYTES = 1420;
/** No loss but the one asked for: a device's own queue drops nothing. */
const QUEUE_PACKETS = 20_000;

export interface WorldSpec {
  /** The namespace that forwards. */
  readonly router: string;
  readonly capture: string;
  readonly seed: number;
  readonly faults: Faults;
  /** Of the packets, each way, in a hundred. */
  readonly lossPercent: number;
  readonly buffers?: UserspaceStackOptions["buffers"];
}

export function ip(...args: readonly string[]): void {
  const run = spawnSync("ip", args, { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`ip ${args.join(" ")}: ${run.stderr}`);
}

export function address(text: string): Address {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(text);
  return parsed;
}

/** Each packet alone is lost or not: numgen counts packets, and none of them is a bundle (see gso_max_segs). */
export function lossRules(lossPercent: number): string {
  if (lossPercent === 0) return "";
  const rule = `meta l4proto tcp numgen random mod 1000 < ${Math.round(lossPercent * 10)} counter drop`;
  return `table inet loss { chain forward { type filter hook forward priority 0; ${rule}; }; }`;
}

/** The device is made in this namespace and moved into that one. */
export function tunIn(
  namespace: string,
  name: string,
  addresses = { v4: `${ROUTER.v4}/24`, v6: `${ROUTER.v6}/64` },
): PlainTun {
  const tun = PlainTun.open(name);
  ip("link", "set", name, "netns", namespace);
  ip("-n", namespace, "addr", "add", addresses.v4, "dev", name);
  ip("-n", namespace, "addr", "add", addresses.v6, "dev", name, "nodad");
  ip("-n", namespace, "link", "set", name, "mtu", String(MTU_BYTES), "txqueuelen", String(QUEUE_PACKETS), "up");
  return tun;
}

/** Loads rules there. */
export function nftIn(namespace: string, rules: string): void {
  if (rules === "") return;
  const run = spawnSync("ip", ["netns", "exec", namespace, "nft", "-f", "-"], { input: rules, encoding: "utf8" });
  if (run.status !== 0) throw new Error(`nft: ${run.stderr}`);
}

export class World {
  readonly stack: UserspaceStack;
  readonly wire: Wire;
  readonly handler: NetstackHandler;
  readonly random: SeededRandom;
  readonly spec: WorldSpec;
  readonly #tun: PlainTun;
  readonly #capture: Capture;
  readonly #packet = new Uint8Array(65_536);
  #isStopped = false;
  /** That the kernel's device did not take. */
  refusedPackets = 0;

  constructor(spec: WorldSpec) {
    this.spec = spec;
    this.#tun = tunIn(spec.router, "wbtun0");
    this.#capture = new Capture(spec.capture);
    this.random = new SeededRandom(spec.seed);
    this.wire = new Wire(spec.seed, spec.faults, (to, bytes) => this.#deliver(to, bytes));
    this.handler = {
      output: (_nowMs, buffer, offset, length) => {
        const bytes = buffer.slice(offset, offset + length);
        this.#capture.write(this.nowMs(), bytes);
        this.wire.carry(this.nowMs(), "kernel", bytes);
      },
    };
    this.stack = new UserspaceStack({
      random: new SeededRandom(spec.seed + 1),
      mtuBytes: MTU_BYTES,
      handler: this.handler,
      isSettled: true, // as a running peer's
      ...(spec.buffers === undefined ? {} : { buffers: spec.buffers }),
    });
    this.stack.setLocalAddresses([address(STACK.v4), address(STACK.v6)]);
    nftIn(spec.router, lossRules(spec.lossPercent));
    this.#pump();
  }

  nowMs(): number {
    return performance.timeOrigin + performance.now();
  }

  #deliver(to: End, bytes: Uint8Array): void {
    if (to === "stack") {
      this.#capture.write(this.nowMs(), bytes);
      this.stack.handlePacket(this.nowMs(), bytes, 0, bytes.length);
    } else if (!this.#tun.write(bytes)) {
      this.refusedPackets++;
    }
  }

  /** A packet that nobody of the two has sent, at once and past the wire. */
  inject(to: End, bytes: Uint8Array): void {
    this.#deliver(to, bytes);
  }

  #pump(): void {
    if (this.#isStopped) return;
    let count = 0;
    for (; count < 64; count++) {
      const length = this.#tun.read(this.#packet);
      if (length === 0) break;
      this.wire.carry(this.nowMs(), "stack", this.#packet.slice(0, length));
    }
    this.wire.run(this.nowMs());
    this.stack.handleTimeout(this.nowMs());
    this.stack.settle(this.nowMs());
    if (count > 0) setImmediate(() => this.#pump());
    else setTimeout(() => this.#pump(), 1);
  }

  stop(): void {
    this.#isStopped = true;
    this.#capture.close();
    this.#tun.close();
  }

  get frames(): number {
    return this.#capture.frames;
  }
}
