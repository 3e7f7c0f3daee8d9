// A whole network of real processes for tests, each started through bin/wirebadge as users do: a coordinator, peers,
// services. State lives in a folder of its own under /tmp; close() ends everything and removes it.
//   await using network = await TestNetwork.start({ policy });
//   const service = await network.service("staging");
//   const gateway = await network.join("node:gw", ["--serve", `staging=${service.at}`]);
//   const coder = await network.join("agent:coder", ["--socks"]);
//   const socket = await coder.connect("staging", service.port);
import { mkdtempSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { AdminClient, readAdminToken } from "../../src/cli/admin-client.ts";
import { connectThroughSocks, parseSocksEntry, type SocksEntry } from "../../src/cli/socks-client.ts";
import { type AuditEntry, auditSchema } from "../../src/coordinator/http/schema.ts";
import { LocalApiClient } from "../../src/peer/local-api-client.ts";
import type { Denial, EntryPoint, Status } from "../../src/peer/local-api-schema.ts";
import type { Namespace } from "../namespaces.ts";
import { cleanEnvironment, Program, type ProgramOptions, until } from "./program.ts";

export const WIREBADGE = fileURLToPath(new URL("../../bin/wirebadge", import.meta.url));
const RECORDER = fileURLToPath(new URL("recorder.ts", import.meta.url));

export interface NetworkOptions {
  /** The policy document, set before anybody joins. */
  readonly policy?: unknown;
  /** Where the coordinator runs; with one, `host` is its address there. */
  readonly namespace?: Namespace;
  /** 127.0.0.1 unless given. */
  readonly host?: string;
  /** Of the coordinator, and of each peer that is given none of its own. */
  readonly env?: NodeJS.ProcessEnv;
}

export interface JoinOptions {
  readonly namespace?: Namespace | undefined;
  /** Options of `token create`: "--sponsor", "--tag", "--may-route", "--uses". */
  readonly token?: readonly string[];
  /** Name of the state folder; the identity's unless given. */
  readonly state?: string;
  /** Instead of bin/wirebadge: a build of the test's own, which takes the same words. */
  readonly program?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly uid?: number;
}

export interface CommandOutcome {
  readonly code: number | NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class TestNetwork {
  readonly folder = mkdtempSync(join(tmpdir(), "wb-net-"));
  readonly #options: NetworkOptions;
  readonly #programs: Program[] = [];
  #coordinator: Program | undefined;
  #listen: string;
  #url = "";
  #adminUrl = "";

  private constructor(options: NetworkOptions) {
    this.#options = options;
    this.#listen = `${options.host ?? "127.0.0.1"}:${options.namespace === undefined ? 0 : 7470}`;
  }

  static async start(options: NetworkOptions = {}): Promise<TestNetwork> {
    const network = new TestNetwork(options);
    try {
      await network.startCoordinator();
      if (options.policy !== undefined) await network.setPolicy(options.policy);
      return network;
    } catch (error) {
      await network.close();
      throw error;
    }
  }

  get coordinator(): Program {
    if (this.#coordinator === undefined) throw new Error("the coordinator has not been started");
    return this.#coordinator;
  }

  get dataFolder(): string {
    return join(this.folder, "coordinator");
  }

  /** As tokens carry it. */
  get url(): string {
    return this.#url;
  }

  get adminUrl(): string {
    return this.#adminUrl;
  }

  /** Also again after its end: with the same data, at the same place. */
  async startCoordinator(): Promise<Program> {
    const words = ["coordinator", "--listen", this.#listen, "--admin-listen", "127.0.0.1:0", "--data", this.dataFolder];
    const started = this.start("coordinator", process.execPath, [WIREBADGE, ...words, "--json"], {
      namespace: this.#options.namespace,
      env: this.#options.env,
    });
    this.useCoordinator(started, await started.event("ready line", readyLine));
    this.#listen = new URL(this.#url).host;
    return started;
  }

  /** One that the test has started by itself, over the same data. */
  useCoordinator(started: Program, ready: Readonly<Record<string, unknown>>): void {
    this.#url = String(ready["url"]);
    this.#adminUrl = String(ready["adminUrl"]);
    this.#coordinator = started;
  }

  /** Any process, ended by close(). */
  start(...args: ConstructorParameters<typeof Program>): Program {
    const program = new Program(...args);
    this.#programs.push(program);
    return program;
  }

  /** A command of the CLI, as a process. */
  wirebadge(name: string, words: readonly string[], options: ProgramOptions = {}): Program {
    return this.start(name, process.execPath, [WIREBADGE, ...words], options);
  }

  /** A command of the CLI, to its end. */
  async command(
    words: readonly string[],
    options: {
      readonly namespace?: Namespace | undefined;
      readonly stdin?: string;
      readonly env?: NodeJS.ProcessEnv;
    } = {},
  ): Promise<CommandOutcome> {
    const program = this.start(`wirebadge ${words[0]}`, process.execPath, [WIREBADGE, ...words], {
      stdin: "",
      ...options,
    });
    const code = await program.exited;
    return { code, stdout: program.stdoutLines.join("\n"), stderr: program.stderrLines.join("\n") };
  }

  /** A command for the administrator, with --json, that has to succeed: its answer. */
  async admin(words: readonly string[], stdin?: string): Promise<Record<string, unknown>> {
    const outcome = await this.adminCommand(words, stdin);
    if (outcome.code !== 0)
      throw new Error(`wirebadge ${words.join(" ")}: ${outcome.code}: ${outcome.stdout}${outcome.stderr}`);
    return outcome.stdout === "" ? {} : (JSON.parse(outcome.stdout) as Record<string, unknown>);
  }

  /** The audit log's entries of that action. */
  async audit(action: string): Promise<AuditEntry[]> {
    const { entries } = auditSchema.parse(await this.api("GET", "/v1/audit?limit=1000"));
    return entries.filter((entry) => entry.action === action);
  }

  adminCommand(words: readonly string[], stdin = ""): Promise<CommandOutcome> {
    const all = [...words, "--url", this.#adminUrl, "--data", this.dataFolder, "--json"];
    return this.command(all, { namespace: this.#options.namespace, stdin });
  }

  /** One call of the admin API, without a process for it: its answer, unchecked. */
  async api(method: string, path: string, body?: unknown): Promise<unknown> {
    const token = await readAdminToken({}, this.dataFolder);
    return await new AdminClient({ url: this.#adminUrl, token }).call(method, path, z.unknown(), body);
  }

  async setPolicy(policy: unknown): Promise<Record<string, unknown>> {
    return await this.admin(["policy", "set", "-"], typeof policy === "string" ? policy : JSON.stringify(policy));
  }

  async token(identity: string, words: readonly string[] = []): Promise<string> {
    return String((await this.admin(["token", "create", "--as", identity, ...words]))["token"]);
  }

  /** A new token and `wirebadge up` with it; resolves at its ready line. */
  async join(identity: string, words: readonly string[] = [], options: JoinOptions = {}): Promise<TestPeer> {
    const token = await this.token(identity, options.token);
    const peer = this.peer(identity, words, options);
    await peer.up(token);
    return peer;
  }

  /** A peer that is not up yet. */
  peer(identity: string, words: readonly string[] = [], options: JoinOptions = {}): TestPeer {
    const state = join(this.folder, options.state ?? identity.replace(/[^\w.-]/g, "-"));
    const { env } = this.#options;
    return new TestPeer(this, identity, state, words, env === undefined ? options : { env, ...options });
  }

  /** A real service that answers each byte with itself, on TCP and UDP, and tells what it received. */
  async service(
    name: string,
    place: { readonly namespace?: Namespace; readonly host?: string; readonly port?: number } = {},
  ): Promise<Recorder> {
    const { namespace, host = "127.0.0.1", port = 0 } = place;
    const program = this.start(`service ${name}`, process.execPath, [RECORDER, host, String(port)], { namespace });
    const listening = await program.event("its port", (value) =>
      value["event"] === "listening" ? Number(value["port"]) : undefined,
    );
    return new Recorder(program, host, listening);
  }

  async close(): Promise<void> {
    await Promise.all(this.#programs.map((program) => program.end()));
    rmSync(this.folder, { recursive: true, force: true });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A peer with its state folder; its process may be killed and started again. */
export class TestPeer {
  readonly identity: string;
  readonly state: string;
  readonly #network: TestNetwork;
  readonly #words: readonly string[];
  readonly #options: JoinOptions;
  #program: Program | undefined;
  session = "";
  addresses: readonly string[] = [];
  entryPoints: readonly EntryPoint[] = [];

  constructor(network: TestNetwork, identity: string, state: string, words: readonly string[], options: JoinOptions) {
    this.#network = network;
    this.identity = identity;
    this.state = state;
    this.#words = words;
    this.#options = options;
  }

  get program(): Program {
    if (this.#program === undefined) throw new Error(`${this.identity} has not been started`);
    return this.#program;
  }

  /** `wirebadge up`; without a token it goes on with its state folder. */
  async up(token?: string): Promise<void> {
    const { namespace, program = WIREBADGE, env, uid } = this.#options;
    const words = ["up", "--state", this.state, ...(token === undefined ? [] : ["--token-file", "-"]), ...this.#words];
    const started = this.#network.start(this.identity, process.execPath, [program, ...words, "--json"], {
      namespace,
      stdin: token ?? "",
      env: { ...(env ?? cleanEnvironment()) },
      uid,
    });
    this.#program = started;
    const ready = await started.event("ready line", readyLine);
    this.session = String(ready["session"]);
    this.addresses = ready["addresses"] as string[];
    this.entryPoints = ready["entryPoints"] as EntryPoint[];
  }

  /** Its overlay IPv6 address. */
  get address(): string {
    return this.addresses.find((address) => address.includes(":")) ?? "";
  }

  get socks(): SocksEntry {
    const entry = this.entryPoints.find(({ kind }) => kind === "socks5");
    if (entry === undefined) throw new Error(`${this.identity} has no SOCKS entry point`);
    return parseSocksEntry(entry.listen);
  }

  get api(): LocalApiClient {
    return new LocalApiClient(this.state);
  }

  status(): Promise<Status> {
    return this.api.status();
  }

  async counter(name: string): Promise<number> {
    return (await this.status()).counters[name] ?? 0;
  }

  async denials(): Promise<readonly Denial[]> {
    return (await this.api.denials()).denials;
  }

  /** Through its SOCKS entry point. @throws SocksReplyError */
  connect(host: string, port: number, timeoutMs = 30_000): Promise<Socket> {
    return connectThroughSocks(this.socks, { host, port, timeoutMs });
  }

  /** Sends a text to an echoing service and waits for the same back. */
  async echo(host: string, port: number, text: string): Promise<string> {
    const socket = await this.connect(host, port);
    try {
      return await exchange(socket, text);
    } finally {
      socket.destroy();
    }
  }
}

/** Writes, and waits for as many bytes. */
export function exchange(socket: Socket, text: string, timeoutMs = 30_000): Promise<string> {
  return new Promise((resolve, reject) => {
    let got = "";
    const done = (act: () => void): void => {
      clearTimeout(timer);
      socket.removeListener("data", onData).removeListener("close", onClose).removeListener("end", onClose);
      socket.removeListener("error", onError);
      act();
    };
    const onData = (chunk: Buffer): void => {
      got += chunk.toString();
      if (got.length >= text.length) done(() => resolve(got));
    };
    const onClose = (): void => done(() => reject(new Error(`the stream ended; got ${JSON.stringify(got)}`)));
    const onError = (error: Error): void => done(() => reject(error));
    const timer = setTimeout(() => done(() => reject(new Error(`no answer within ${timeoutMs} ms`))), timeoutMs);
    socket.on("data", onData).once("close", onClose).once("end", onClose).once("error", onError);
    if (socket.readableEnded || socket.destroyed) {
      onClose();
      return;
    }
    socket.write(text);
  });
}

export interface ReceivedRecord {
  readonly protocol: "tcp" | "udp";
  readonly event: "opened" | "data" | "closed";
  readonly from: string;
  readonly text?: string;
}

/** The test's end of recorder.ts. */
export class Recorder {
  readonly program: Program;
  readonly host: string;
  readonly port: number;

  constructor(program: Program, host: string, port: number) {
    this.program = program;
    this.host = host;
    this.port = port;
  }

  get at(): string {
    return `${this.host}:${this.port}`;
  }

  /** Everything that has reached it. */
  get received(): ReceivedRecord[] {
    return this.program.records.filter((value) => value["event"] !== "listening") as unknown as ReceivedRecord[];
  }

  hasReceived(text: string): boolean {
    return this.received.some((record) => record.text?.includes(text) === true);
  }

  /** Its next record that holds the text. */
  async receives(text: string): Promise<void> {
    await until(`${text} at ${this.at}`, () => this.hasReceived(text) || undefined);
  }
}

function readyLine(value: Record<string, unknown>): Record<string, unknown> | undefined {
  if (value["error"] !== undefined) throw new Error(JSON.stringify(value));
  return value["event"] === "ready" ? value : undefined;
}
