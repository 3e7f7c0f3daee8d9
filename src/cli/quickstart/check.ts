// The quickstart's check: six steps over real processes, each with what it measured. A step that doesn't hold ends it.
import { once } from "node:events";
import type { ClientRequest } from "node:http";
import { request } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { connectThroughSocks, httpGet, type SocksEntry, SocksReplyError } from "../socks-client.ts";
import { formatMeasuredMs } from "../table.ts";
import type { Network, RunningAgent } from "./network.ts";
import type { Child } from "./processes.ts";

export const STEPS = ["coordinator", "enrolment", "handshake", "staging", "production", "revocation"] as const;
export type StepName = (typeof STEPS)[number];

export interface StepResult {
  readonly name: StepName;
  readonly ok: boolean;
  readonly ms: number;
  readonly text: string;
  readonly details: Readonly<Record<string, unknown>>;
}

const SEND_EVERY_MS = 2;
const REVOKED_WITHIN_MS = 1_000; // the promise; a busy machine takes its own time to start the command
const QUIET_MS = 400; // so long without a byte and the stream counts as cut
const DENIAL_WITHIN_MS = 1_000;
const SOCKS_NOT_ALLOWED = 2; // RFC 1928 §6

interface Outcome {
  readonly text: string;
  readonly details: Readonly<Record<string, unknown>>;
}

interface Service {
  readonly child: Child;
  readonly port: number;
}

export class Check {
  readonly #network: Network;
  readonly #report: (result: StepResult) => void;
  #staging: Service | undefined;
  #coder: RunningAgent | undefined;
  #auditor: RunningAgent | undefined;
  #policyVersion = 0;

  constructor(network: Network, report: (result: StepResult) => void) {
    this.#network = network;
    this.#report = report;
  }

  get coder(): RunningAgent {
    return present(this.#coder, "agent:coder");
  }

  /** Runs the steps in order, up to the first that doesn't hold. */
  async run(): Promise<readonly StepResult[]> {
    const steps: Readonly<Record<StepName, () => Promise<Outcome>>> = {
      coordinator: () => this.#startCoordinator(),
      enrolment: () => this.#enrol(),
      handshake: () => this.#handshake(),
      staging: () => this.#reachStaging(),
      production: () => this.#reachProduction(),
      revocation: () => this.#revoke(),
    };
    const results: StepResult[] = [];
    for (const name of STEPS) {
      const startedMs = performance.now();
      const result = await steps[name]().then(
        (outcome) => ({ name, ok: true, ms: performance.now() - startedMs, ...outcome }),
        (error: unknown) => {
          const text = (error instanceof Error ? error.message : String(error)) + this.#network.processes.lastWords();
          return { name, ok: false, ms: performance.now() - startedMs, text, details: {} };
        },
      );
      results.push(result);
      this.#report(result);
      if (!result.ok) break;
    }
    return results;
  }

  async #startCoordinator(): Promise<Outcome> {
    const url = await this.#network.startCoordinator();
    return { text: `ready at ${url}`, details: { url } };
  }

  async #enrol(): Promise<Outcome> {
    const network = this.#network;
    const token = async (...words: string[]): Promise<string> =>
      String((await network.admin(["token", "create", ...words]))["token"]);
    const [policy, staging, production, forGateway, forCoder, forAuditor] = await Promise.all([
      network.admin(["policy", "set", "-"], network.policyText()),
      network.startService("staging"),
      network.startService("production"),
      token("--as", "node:gateway"),
      token("--as", "agent:coder", "--sponsor", "user:ana@example.com"),
      token("--as", "agent:auditor"),
    ]);
    this.#staging = staging;
    this.#policyVersion = Number(policy["version"]);
    const serve = [
      "--serve",
      network.places.staging.serve(staging.port),
      "--serve",
      network.places.production.serve(production.port),
    ];
    const { socks } = network.places;
    const [gateway, coder, auditor] = await Promise.all([
      network.startPeer("gateway", forGateway, serve),
      network.startPeer("coder", forCoder, socks),
      network.startPeer("auditor", forAuditor, socks),
    ]);
    this.#coder = coder;
    this.#auditor = auditor;
    const peers = [gateway, coder, auditor];
    const times = peers.map((peer) => `${peer.identity} ${formatMeasuredMs(peer.upMs)}`);
    return {
      text: `three identities up: ${times.join(", ")}`,
      details: Object.fromEntries(peers.map(({ identity, session, upMs }) => [identity, { session, upMs }])),
    };
  }

  async #handshake(): Promise<Outcome> {
    const ping = await this.#network.processes.ask(["ping", "node:gateway", "--state", this.coder.state]);
    const again = await this.#network.processes.ask(["ping", "node:gateway", "--state", this.coder.state]);
    const [first, round] = [Number(ping["rttMs"]), Number(again["rttMs"])];
    if (ping["path"] !== "direct") throw new Error(`the path to node:gateway is ${ping["path"]}, not direct`);
    return {
      text:
        `agent:coder and node:gateway, directly: ${formatMeasuredMs(first)} with the handshake, then ` +
        `${formatMeasuredMs(round)}`,
      details: { firstMs: first, roundTripMs: round, path: ping["path"], endpoint: ping["endpoint"] },
    };
  }

  async #reachStaging(): Promise<Outcome> {
    if (this.#network.flip === "staging-down") present(this.#staging, "staging").child.process.kill("SIGKILL");
    const startedMs = performance.now();
    const socket = await connectThroughSocks(socksOf(this.coder), { host: "staging", port: 80 });
    const answer = await httpGet(socket, "staging", "/");
    const tookMs = performance.now() - startedMs;
    if (answer.status !== 200) throw new Error(`staging answered ${answer.status}, not 200`);
    const { caller } = JSON.parse(answer.body) as { readonly caller: Readonly<Record<string, unknown>> | null };
    if (caller?.["identity"] !== "agent:coder")
      throw new Error(`staging should have been told that agent:coder calls; it was told ${JSON.stringify(caller)}`);
    if (caller["sponsor"] !== "user:ana@example.com")
      throw new Error(
        `staging should have been told for whom agent:coder works; it was told ${JSON.stringify(caller)}`,
      );
    return {
      text: `200 to agent:coder; the service was told who called: ${caller["identity"]} for ${caller["sponsor"]}`,
      details: { status: answer.status, caller: { identity: caller["identity"], sponsor: caller["sponsor"] }, tookMs },
    };
  }

  async #reachProduction(): Promise<Outcome> {
    const { coder } = this;
    const toAuditor = await connectThroughSocks(socksOf(present(this.#auditor, "agent:auditor")), {
      host: "production",
      port: 80,
    })
      .then((socket) => httpGet(socket, "production", "/"))
      .catch((error: Error) => {
        throw new Error(`production should answer agent:auditor, which is granted it: ${error.message}`);
      });
    if (toAuditor.status !== 200) throw new Error(`production answered agent:auditor ${toAuditor.status}, not 200`);
    await connectThroughSocks(socksOf(coder), { host: "production", port: 80 }).then(
      (socket) => {
        socket.destroy();
        throw new Error("agent:coder reached production, which nothing grants it");
      },
      (error: Error) => {
        if (!(error instanceof SocksReplyError) || error.reply !== SOCKS_NOT_ALLOWED)
          throw new Error(`agent:coder should be told "not allowed" (SOCKS 2), but: ${error.message}`);
      },
    );
    const repliedMs = performance.now();
    const printed = await coder.child.event("line about the denial on standard error", DENIAL_WITHIN_MS, (value) =>
      value["event"] === "denial" ? value : undefined,
    );
    const printedAfterMs = performance.now() - repliedMs;
    const listed = await this.#network.processes.ask(["denials", "--state", coder.state]);
    const denial = (listed["denials"] as readonly Record<string, unknown>[]).find(({ id }) => id === printed["id"]);
    if (denial === undefined) throw new Error(`\`wirebadge denials\` doesn't list ${printed["id"]}, which was printed`);
    const { id, reason, policyVersion, hint } = denial;
    if (reason !== "NO_GRANT" || policyVersion !== this.#policyVersion || typeof hint !== "string" || hint === "")
      throw new Error(`the denial doesn't explain itself: ${JSON.stringify(denial)}`);
    return {
      text: `200 to agent:auditor, denied to agent:coder: ${id} ${reason}, policy version ${policyVersion}; ${hint}`,
      details: { toAuditor: toAuditor.status, denial, printedAfterMs },
    };
  }

  async #revoke(): Promise<Outcome> {
    const network = this.#network;
    const staging = present(this.#staging, "staging").child;
    const stream = await openStream(socksOf(this.coder));
    try {
      const before = await received(staging);
      const noop = network.flip === "revoke-noop";
      const words = noop ? ["session", "list"] : ["revoke", "agent:coder", "--reason", "quickstart"];
      const command = await network.processes.command([...network.adminWords(words), "--json"], {
        namespace: network.places.namespaceOf("coordinator"),
      });
      if (command.code !== 0)
        throw new Error(`wirebadge ${words.join(" ")}: exit code ${command.code}: ${command.stdout}${command.stderr}`);
      const end = await lastByte(staging);
      const tookMs = Number(end.lastByteNs - command.startedNs) / 1e6;
      if (end.stillOpen)
        throw new Error(`${(tookMs / 1000).toFixed(1)} s after the command, agent:coder's bytes still reach staging`);
      const bytes = end.bytes - before.bytes;
      if (bytes < 1 || tookMs <= 0)
        throw new Error("no byte of the stream arrived while the command ran: nothing was measured");
      const { atMs } = JSON.parse(command.stdout) as { readonly atMs: number };
      const acceptedMs = Math.max(0, end.lastByteMs - atMs);
      if (acceptedMs > REVOKED_WITHIN_MS)
        throw new Error(`the last byte arrived ${formatMeasuredMs(acceptedMs)} after the coordinator took the command`);
      return {
        text:
          `${formatMeasuredMs(tookMs)} from the command's start to the last byte that staging received ` +
          `(${formatMeasuredMs(acceptedMs)} from the coordinator's taking it)`,
        details: { lastByteMs: tookMs, lastByteAfterAcceptedMs: acceptedMs, bytesDuring: bytes },
      };
    } finally {
      stream.stop();
    }
  }
}

function present<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`${what} is not there`);
  return value;
}

function socksOf(agent: RunningAgent): SocksEntry {
  return present(agent.socks, `the SOCKS entry point of ${agent.identity}`);
}

/** A request that never ends: one byte every 2 ms, for as long as anybody takes them. */
async function openStream(entry: SocksEntry): Promise<{ stop(): void }> {
  const socket = await connectThroughSocks(entry, { host: "staging", port: 80 });
  socket.setNoDelay(true);
  const sending: ClientRequest = request({
    method: "POST",
    path: "/",
    headers: { host: "staging" },
    createConnection: () => socket,
  });
  sending.on("error", () => clearInterval(timer)); // cut: that is what is measured, at the other end
  const timer = setInterval(() => sending.write("."), SEND_EVERY_MS);
  sending.once("close", () => clearInterval(timer));
  await Promise.race([once(socket, "drain"), delay(200)]);
  return {
    stop: () => {
      clearInterval(timer);
      sending.destroy();
    },
  };
}

interface Received {
  readonly bytes: number;
  /** By the machine's monotonic clock, which all processes share; and by its wall clock. */
  readonly lastByteNs: bigint;
  readonly lastByteMs: number;
}

let questions = 0;

/** What the service has received so far, by its own clock readings. */
async function received(service: Child): Promise<Received> {
  questions += 1;
  const id = String(questions);
  const answer = service.event("answer", 5_000, (value) =>
    value["event"] === "received" && value["id"] === id ? value : undefined,
  );
  service.process.stdin?.write(`${id}\n`);
  const { bytes, lastByteNs, lastByteMs } = await answer;
  return { bytes: Number(bytes), lastByteNs: BigInt(String(lastByteNs)), lastByteMs: Number(lastByteMs) };
}

/** Waits until nothing has arrived for a while, or for as long as no revocation may take. */
async function lastByte(service: Child): Promise<Received & { readonly stillOpen: boolean }> {
  const fromNs = process.hrtime.bigint();
  for (;;) {
    const now = await received(service);
    const nowNs = process.hrtime.bigint();
    if (Number(nowNs - now.lastByteNs) / 1e6 >= QUIET_MS) return { ...now, stillOpen: false };
    if (Number(nowNs - fromNs) / 1e6 >= 3 * REVOKED_WITHIN_MS) return { ...now, stillOpen: true };
    await delay(20);
  }
}
