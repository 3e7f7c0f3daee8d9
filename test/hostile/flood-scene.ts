// A victim, its friends and an attacker, each a network namespace: the victim is `wirebadge wg` or wireguard-go; one
// friend keeps a TCP flow with it, others make handshakes; the attacker floods it with handshake messages. What came of
// it is measured here, in the same way for every victim.
import { type ChildProcess, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { toBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { startWireguardGo } from "../interop/stock-wireguard.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import type { FlowReport } from "./flood-flow.ts";
import type { PeersOptions, PeersReport } from "./flood-peers.ts";
import type { FloodOptions, FloodReport } from "./flood-sender.ts";

const script = (name: string): string => fileURLToPath(new URL(`${name}.ts`, import.meta.url));
const WIREBADGE = fileURLToPath(new URL("../../bin/wirebadge", import.meta.url));
/** As bin/launch.js starts `wirebadge wg`. */
const LEAN = ["--max-semi-space-size=1", "--v8-pool-size=1", "--no-allocation-site-pretenuring"];
const VICTIM_PORT = 51_820;
const FORWARD_PORT = 9_000;
const SERVICE_PORT = 7_000;
const FRIENDS = 40;

const crypto = new PortableCrypto();
const keyOf = (number: number): Uint8Array => new Uint8Array(32).fill(number + 1);
const publicKeyOf = (number: number): string => toBase64(crypto.publicKey(keyOf(number)));
const VICTIM = 200;
const FLOW = 201;

export interface SceneOptions {
  readonly victim: "wirebadge" | "wirebadge-portable" | "wireguard-go";
  /** "up": the victim receives. */
  readonly direction: "up" | "down";
  /** Friends from IPv4 addresses alone: wireguard-go has not answered the others here. */
  readonly friendsV4Only?: boolean;
  /** Wirebadge alone: adds the counters of turn-trace.ts. */
  readonly traced?: boolean;
}

export interface Measured {
  /** MB/s. */
  readonly flow: number;
  readonly flood: FloodReport | undefined;
  /** Sorted, in ms; Infinity where there was no session within 20 s. */
  readonly handshakesMs: readonly number[];
  readonly cookies: number;
  /** The victim's resident memory at its highest, above that of before. */
  readonly grewMb: number;
  /** At the attacker's end of the wire. */
  readonly wire: { readonly sentBytes: number; readonly receivedBytes: number; readonly received: number };
  /** What the victim counted meanwhile; wireguard-go doesn't say. */
  readonly counters: Readonly<Record<string, number>>;
}

export function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)]!;
}

/** A child that speaks JSON, one line at a time. */
class Speaker {
  readonly child: ChildProcess;
  readonly #lines: unknown[] = [];
  #wake: (() => void) | undefined;
  #ended: string | undefined;

  constructor(child: ChildProcess, name: string) {
    this.child = child;
    child.stdin?.on("error", () => undefined);
    createInterface({ input: child.stdout! }).on("line", (line) => {
      this.#lines.push(JSON.parse(line));
      this.#wake?.();
    });
    child.on("exit", (code, signal) => {
      this.#ended = `${name} ended (${code ?? signal})`;
      this.#wake?.();
    });
  }

  async next<T>(): Promise<T> {
    while (this.#lines.length === 0) {
      if (this.#ended !== undefined) throw new Error(this.#ended);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#lines.shift() as T;
  }

  /** The newest of what was said since the last time, if anything was. */
  newest<T>(): T | undefined {
    return this.#lines.splice(0).at(-1) as T | undefined;
  }

  ask(): void {
    this.child.stdin?.write("\n");
  }
}

function residentMb(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1_024;
}

function friendAddress(number: number): string {
  return number % 2 === 0 ? `10.1.1.${number + 1}` : `fd67:0:${(number + 1).toString(16)}::1`;
}

export class FloodScene {
  readonly #lab: Lab;
  readonly #options: SceneOptions;
  readonly #folder: string;
  readonly #victim: Namespace;
  readonly #friends: Namespace;
  readonly #attacker: Namespace;
  #process: Speaker | undefined;
  #victimPid = 0;
  #flow: Speaker | undefined;

  private constructor(lab: Lab, options: SceneOptions, folder: string) {
    this.#lab = lab;
    this.#options = options;
    this.#folder = folder;
    [this.#victim, this.#friends, this.#attacker] = [
      lab.namespace("victim"),
      lab.namespace("friends"),
      lab.namespace("attacker"),
    ];
  }

  /** The tunnel is up and the flow runs. */
  static async open(options: SceneOptions): Promise<FloodScene> {
    const folder = await mkdtemp(join(tmpdir(), "wirebadge-flood-"));
    const scene = new FloodScene(new Lab(), options, folder);
    try {
      scene.#connect();
      await scene.#startVictim();
      await scene.#startFlow();
    } catch (error) {
      await scene[Symbol.asyncDispose]();
      throw error;
    }
    return scene;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lab.close();
    await rm(this.#folder, { recursive: true });
  }

  /** Half the friends come from IPv4 addresses, half from an IPv6 /64 each. */
  #connect(): void {
    const [victim, friends, attacker] = [this.#victim, this.#friends, this.#attacker];
    const [, toVictim] = this.#lab.link(
      { namespace: victim, addresses: ["10.1.0.1/16", "fd01::1/64"] },
      { namespace: friends, addresses: ["10.1.0.2/16", "fd01::2/64"] },
    );
    this.#lab.link(
      { namespace: victim, addresses: ["10.2.0.1/24", "fd02::1/64"] },
      { namespace: attacker, addresses: ["10.2.0.2/24", "fd02::2/64"] },
    );
    for (let number = 0; number < FRIENDS; number++) {
      const address = friendAddress(number);
      friends.addAddress(toVictim, `${address}/${address.includes(":") ? 128 : 32}`);
    }
    victim.addRoute("fd67::/16", "fd01::2");
    victim.addRoute("10.66.0.0/15", "10.2.0.2");
    victim.addRoute("fd66::/16", "fd02::2");
  }

  async #startVictim(): Promise<void> {
    const peers = [FLOW, ...Array.from({ length: FRIENDS }, (_, i) => i)].map((number, at) => {
      const inside = number === FLOW ? "10.9.0.2/32" : `10.9.1.${at}/32`;
      return `[Peer]\nPublicKey = ${publicKeyOf(number)}\nAllowedIPs = ${inside}\n`;
    });
    const own = `PrivateKey = ${toBase64(keyOf(VICTIM))}\nListenPort = ${VICTIM_PORT}\n`;
    if (this.#options.victim === "wireguard-go") {
      const config = `[Interface]\n${own}${peers.join("")}`;
      await startWireguardGo(this.#victim, { config, addresses: ["10.9.0.1/16"] });
      const run = spawnSync("ip", ["netns", "pids", this.#victim.name], { encoding: "utf8" });
      this.#victimPid = Number(run.stdout.split("\n")[0]);
      return;
    }
    const file = join(this.#folder, "victim.conf");
    await writeFile(file, `[Interface]\nAddress = 10.9.0.1/16\n${own}${peers.join("")}`, { mode: 0o600 });
    const portable = this.#options.victim === "wirebadge-portable" ? { FLOOD_VICTIM_PORTABLE: "1" } : {};
    const traced = this.#options.traced ? { FLOOD_VICTIM_TRACED: "1" } : {};
    const exposed = `127.0.0.1:${SERVICE_PORT}=${SERVICE_PORT}`;
    this.#process = this.#speak(this.#victim, [...LEAN, script("flood-victim"), file, exposed], {
      ...portable,
      ...traced,
    });
    await this.#process.next();
    this.#victimPid = this.#process.child.pid!;
  }

  async #startFlow(): Promise<void> {
    const host = this.#options.victim === "wireguard-go" ? "10.9.0.1" : "127.0.0.1";
    const server = this.#speak(this.#victim, [script("flood-flow"), "serve", host, String(SERVICE_PORT)]);
    await server.next();
    const file = join(this.#folder, "flow.conf");
    const text = `[Interface]
PrivateKey = ${toBase64(keyOf(FLOW))}
Address = 10.9.0.2/32
[Peer]
PublicKey = ${publicKeyOf(VICTIM)}
AllowedIPs = 10.9.0.1/32
Endpoint = 10.1.0.1:${VICTIM_PORT}
`;
    await writeFile(file, text, { mode: 0o600 });
    const forward = `127.0.0.1:${FORWARD_PORT}=10.9.0.1:${SERVICE_PORT}`;
    const friend = this.#speak(this.#friends, [WIREBADGE, "wg", file, "--json", "--forward", forward]);
    await friend.next();
    const { direction } = this.#options;
    const client = this.#speak(this.#friends, [script("flood-flow"), direction, "127.0.0.1", String(FORWARD_PORT)]);
    this.#flow = direction === "up" ? server : client;
    await this.#flow.next();
  }

  /** For `forMs`, under this flood if there is one, and with this many handshakes of friends. */
  async measure(
    forMs: number,
    handshakes: number,
    flood?: Pick<FloodOptions, "kind" | "sources" | "perSecond">,
  ): Promise<Measured> {
    const attacker = flood === undefined ? undefined : this.#startAttacker(forMs, flood);
    const friends = this.#startFriends(handshakes, (forMs - 500) / Math.max(1, handshakes));
    await attacker?.next();
    await friends?.next();
    const before = this.#wire();
    const countersBefore = await this.counters();
    const startMb = residentMb(this.#victimPid);
    const from = await this.#flowNow();
    attacker?.ask();
    friends?.ask();
    let highestMb = startMb;
    for (const endMs = performance.now() + forMs; performance.now() < endMs; ) {
      await delay(100);
      highestMb = Math.max(highestMb, residentMb(this.#victimPid));
    }
    const to = await this.#flowNow();
    const report = await attacker?.next<FloodReport>();
    const wire = this.#wire();
    const made = await friends?.next<PeersReport>();
    const countersAfter = await this.counters();
    const counters: Record<string, number> = {};
    for (const [name, count] of Object.entries(countersAfter)) counters[name] = count - (countersBefore[name] ?? 0);
    return {
      flow: (to.bytes - from.bytes) / 1e3 / (to.atMs - from.atMs),
      flood: report,
      handshakesMs: (made?.tookMs ?? []).map((took) => took ?? Number.POSITIVE_INFINITY).sort((a, b) => a - b),
      cookies: made?.cookies ?? 0,
      grewMb: highestMb - startMb,
      wire: {
        sentBytes: wire.sentBytes - before.sentBytes,
        receivedBytes: wire.receivedBytes - before.receivedBytes,
        received: wire.received - before.received,
      },
      counters,
    };
  }

  async counters(): Promise<Record<string, number>> {
    this.#process?.ask();
    return (await this.#process?.next()) ?? {};
  }

  #startAttacker(forMs: number, flood: Pick<FloodOptions, "kind" | "sources" | "perSecond">): Speaker {
    const options: FloodOptions = {
      ...flood,
      publicKey: publicKeyOf(VICTIM),
      to: ["10.2.0.1", "fd02::1"],
      port: VICTIM_PORT,
      forMs,
    };
    return this.#speak(this.#attacker, [script("flood-sender"), JSON.stringify(options)]);
  }

  #startFriends(count: number, everyMs: number): Speaker | undefined {
    if (count === 0) return undefined;
    const peers = (v4: boolean): PeersOptions["peers"] =>
      Array.from({ length: FRIENDS }, (_, number) => number)
        .filter((number) => (number % 2 === 0) === v4)
        .map((number) => ({ privateKey: toBase64(keyOf(number)), address: friendAddress(number) }));
    const options: PeersOptions = {
      victim: { publicKey: publicKeyOf(VICTIM), endpoints: [`10.1.0.1:${VICTIM_PORT}`, `[fd01::1]:${VICTIM_PORT}`] },
      peers: peers(true).flatMap((peer, i) => (this.#options.friendsV4Only ? [peer] : [peer, peers(false)[i]!])),
      everyMs,
      count,
    };
    return this.#speak(this.#friends, [script("flood-peers"), JSON.stringify(options)]);
  }

  async #flowNow(): Promise<FlowReport> {
    this.#flow!.newest();
    return await this.#flow!.next<FlowReport>();
  }

  #wire(): { sentBytes: number; receivedBytes: number; received: number } {
    const [{ stats64 }] = JSON.parse(this.#attacker.ip("-s", "-j", "link", "show", "dev", "eth0")) as [
      { stats64: Record<"rx" | "tx", { bytes: number; packets: number }> },
    ];
    return { sentBytes: stats64.tx.bytes, receivedBytes: stats64.rx.bytes, received: stats64.rx.packets };
  }

  #speak(namespace: Namespace, args: readonly string[], env: Record<string, string> = {}): Speaker {
    const child = namespace.spawn(process.execPath, args, {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, ...env, WIREBADGE_LOG: "warn" },
    });
    return new Speaker(child, args.slice(0, 2).join(" "));
  }
}
