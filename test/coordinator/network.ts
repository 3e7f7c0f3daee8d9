// A coordinator in this process with its data in a temporary folder, its admin API, and peers that join it: what the
// coordinator's tests share.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { z } from "zod";
import { randomBytes, SeededRandom } from "../../src/base/random.ts";
import type { Lease } from "../../src/control/lease.ts";
import type { Offers } from "../../src/control/messages.ts";
import type { NetmapView } from "../../src/control/netmap.ts";
import { type JoinToken, parseJoinToken } from "../../src/control/token.ts";
import { startCoordinator } from "../../src/coordinator/coordinator.ts";
import {
  auditSchema,
  healthSchema,
  type Problem,
  policySchema,
  problemSchema,
  type Revocation,
  revocationSchema,
  type TokenCreate,
  tokenCreatedSchema,
} from "../../src/coordinator/http/schema.ts";
import type { CoordinatorOptions, Logger, RunningCoordinator } from "../../src/coordinator/options.ts";
import { type Clock, SystemClock } from "../../src/io/clock.ts";
import { chooseCrypto } from "../../src/io/crypto-choice.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { ControlClient, type ControlClientOptions } from "../../src/peer/control-client.ts";
import type { KeptState } from "../../src/peer/kept-for-coordinator.ts";

/** Native where the machine has it: most of what these tests cost is signatures. */
export const { crypto } = chooseCrypto();

/** A clock that tests push forward; it also goes by itself. */
export class PushedClock implements Clock {
  readonly #real = new SystemClock();
  aheadMs = 0;
  nowMs(): number {
    return this.#real.nowMs() + this.aheadMs;
  }
}

export class LogLines implements Logger {
  readonly lines: string[] = [];
  readonly #add = (details: object, message: string): void => {
    const err = "err" in details ? String(details.err) : "";
    this.lines.push(`${message} ${JSON.stringify(details)} ${err}`);
  };
  readonly info = this.#add;
  readonly warn = this.#add;
  readonly error = this.#add;
  readonly debug = this.#add;
}

export class TestNetwork {
  readonly dataDir: string;
  readonly clock = new PushedClock();
  readonly log = new LogLines();
  running: RunningCoordinator;
  readonly #options: Partial<CoordinatorOptions>;
  readonly #clients: ControlClient[] = [];
  #port: string | undefined;

  private constructor(dataDir: string, options: Partial<CoordinatorOptions>) {
    this.dataDir = dataDir;
    this.#options = options;
    this.running = undefined as unknown as RunningCoordinator;
  }

  static async start(options: Partial<CoordinatorOptions> = {}): Promise<TestNetwork> {
    const network = new TestNetwork(mkdtempSync(join(tmpdir(), "wirebadge-test-")), options);
    await network.startAgain();
    return network;
  }

  /** On the same port as before, so that peers find it again. */
  async startAgain(): Promise<void> {
    this.running = await this.startSecond({});
    this.#port = this.running.url.replace("http://", "");
  }

  /** Another one, over the same data unless said otherwise. */
  async startSecond(options: Partial<CoordinatorOptions>): Promise<RunningCoordinator> {
    return await startCoordinator({
      dataDir: this.dataDir,
      listen: this.#port ?? "127.0.0.1:0",
      adminListen: "127.0.0.1:0",
      clock: this.clock,
      logger: this.log,
      crypto,
      random: osRandom,
      software: "wirebadge test",
      ...this.#options,
      ...options,
    });
  }

  async end(): Promise<void> {
    for (const client of this.#clients) await client.stop();
    await this.running.stop();
    rmSync(this.dataDir, { recursive: true, force: true });
  }

  get adminToken(): string {
    return readFileSync(this.running.adminTokenFile, "utf8").trim();
  }

  async request(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Response> {
    return await fetch(this.running.adminUrl + path, {
      method,
      headers: { authorization: `Bearer ${this.adminToken}`, "content-type": "application/json", ...headers },
      ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
  }

  /** The answer of a request that must succeed, held against its schema. */
  async admin<T extends z.ZodType>(shape: T, method: string, path: string, body?: unknown): Promise<z.infer<T>> {
    const response = await this.request(method, path, body);
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return shape.parse(JSON.parse(text));
  }

  /** The code of a request that must be refused. */
  async refusal(method: string, path: string, body?: unknown): Promise<Problem> {
    const response = await this.request(method, path, body);
    if (response.ok) throw new Error(`${method} ${path} was not refused: ${await response.text()}`);
    return problemSchema.parse(await response.json());
  }

  async token(request: TokenCreate): Promise<JoinToken> {
    return parseJoinToken((await this.admin(tokenCreatedSchema, "POST", "/v1/tokens", request)).token);
  }

  async setPolicy(policy: object): Promise<void> {
    await this.admin(policySchema, "PUT", "/v1/policy", { text: JSON.stringify(policy) });
  }

  async auditActions(): Promise<string[]> {
    const { entries, verified } = await this.admin(auditSchema, "GET", "/v1/audit?limit=1000");
    if (!verified) throw new Error("the audit chain is broken");
    return entries.map(({ action }) => action);
  }

  async counter(name: string): Promise<number> {
    return (await this.admin(healthSchema, "GET", "/v1/health")).counters[name] ?? 0;
  }

  async revoke(selector: string): Promise<Revocation> {
    return await this.admin(revocationSchema, "POST", "/v1/revocations", { selector });
  }

  /** A peer with keys of its own; not started. */
  peer(token: JoinToken, options: Partial<ControlClientOptions> = {}): TestPeer {
    const random = osRandom;
    const peer = new TestPeer({
      url: token.url,
      coordinatorKey: token.coordinatorKey,
      enrolment: { tokenId: token.id, secret: token.secret },
      signSeed: randomBytes(random, 32),
      wireguardKey: randomBytes(random, 32),
      crypto,
      random,
      clock: this.clock,
      software: "wirebadge test",
      ...options,
    });
    this.#clients.push(peer.client);
    return peer;
  }

  /** A new identity's peer, joined. */
  async join(as: string, options: Partial<TokenCreate> & { offers?: Offers } = {}): Promise<TestPeer> {
    const { offers, ...request } = options;
    const peer = this.peer(await this.token({ as, ...request }), offers === undefined ? {} : { offers });
    peer.client.start();
    await peer.client.ready;
    return peer;
  }
}

export class TestPeer {
  readonly options: ControlClientOptions;
  readonly client: ControlClient;
  readonly problems: string[] = [];
  readonly punches: string[] = [];
  readonly leases: Lease[] = [];
  readonly views: NetmapView[] = [];
  entries: Record<string, unknown> = {};
  revoked = false;
  /** As its state file would hold it. */
  kept: KeptState = { revocations: [] };
  offsetMs = Number.NaN;
  #changed: (() => void)[] = [];

  constructor(options: ControlClientOptions) {
    this.options = options;
    this.client = new ControlClient(options);
    const wake = (): void => {
      const waiting = this.#changed;
      this.#changed = [];
      for (const check of waiting) check();
    };
    this.client.on("netmap", (view, netmap) => {
      this.views.push(view);
      this.entries = netmap.entries;
      wake();
    });
    this.client.on("welcome", ({ kept }) => {
      this.kept = kept;
    });
    this.client.on("kept", (kept) => {
      this.kept = kept;
    });
    this.client.on("lease", (_bytes, lease) => {
      this.leases.push(lease);
      wake();
    });
    this.client.on("punch", (session) => {
      this.punches.push(session);
      wake();
    });
    this.client.on("problem", (error) => {
      this.problems.push(error.code);
      wake();
    });
    this.client.on("revoked", () => {
      this.revoked = true;
      wake();
    });
    this.client.on("state", wake);
    this.client.on("time", (offsetMs) => {
      this.offsetMs = offsetMs;
    });
  }

  get view(): NetmapView {
    const view = this.views.at(-1);
    if (view === undefined) throw new Error("no netmap yet");
    return view;
  }

  get session(): string {
    return this.client.session!;
  }

  /** Resolves once the condition holds, looked at after every event. */
  async until(condition: () => boolean, what: string): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (!condition()) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) throw new Error(`waited in vain until ${what}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(leftMs, 1_000));
        this.#changed.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }
}

export function seeded(seed: number): SeededRandom {
  return new SeededRandom(seed);
}
