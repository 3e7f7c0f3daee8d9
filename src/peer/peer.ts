// `wirebadge up`: one session, composed. State → crypto → engine, stack and UDP port in a driver → control channel →
// gateway and entry points. Everything that decides is in the engine; here it is fed, and what it says is told on.
import type { Logger } from "pino";
import { formatEndpoint, parseAddress, parsePrefix } from "../base/address.ts";
import { toBase64 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { MTU_DEFAULT_BYTES } from "../base/limits.ts";
import { leaseEndMs, verifyLease } from "../control/lease.ts";
import type { NetmapView } from "../control/netmap.ts";
import { isProbe } from "../control/probe.ts";
import type { Crypto } from "../crypto/provider.ts";
import { Engine, type EngineSink } from "../engine/engine.ts";
import type { FlowRecord } from "../filter/contract.ts";
import { type Clock, cpuStopwatch, SystemClock, stopwatch } from "../io/clock.ts";
import { type CryptoChoice, chooseCrypto } from "../io/crypto-choice.ts";
import { osRandom } from "../io/os-random.ts";
import { type DatagramHandler, DgramUdpPort } from "../io/udp.ts";
import { SOFTWARE, SOFTWARE_VERSION } from "../io/version.ts";
import { UserspaceStack } from "../netstack/stack.ts";
import { PROTOCOL_TCP } from "../wire/packet.ts";
import { ControlClient } from "./control-client.ts";
import { DenialFeed, fromRecord } from "./denial-feed.ts";
import { desiredStateOf } from "./desired-state.ts";
import { LoopDriver } from "./driver.ts";
import { EndpointDiscovery } from "./endpoint-discovery.ts";
import { EntryPoints } from "./entry-points.ts";
import { Gateway } from "./gateway.ts";
import { parseOffers } from "./gateway-offers.ts";
import { LocalApiServer } from "./local-api.ts";
import type { Denial, EntryPoint } from "./local-api-schema.ts";
import { StackDialer } from "./overlay-dialer.ts";
import { OwnerCheck } from "./owner.ts";
import { describeDenial, PeerHost } from "./peer-host.ts";
import { PeerViews } from "./peer-views.ts";
import { hostNetwork } from "./real-network.ts";
import { SessionStore } from "./session-store.ts";

export interface PeerOptions {
  readonly token: string | undefined;
  readonly stateDir: string | undefined;
  readonly listenPort: number | undefined;
  readonly routes: readonly string[];
  readonly serves: readonly string[];
  /** "" asks for the default place. */
  readonly socks: string | undefined;
  readonly allowRemote: boolean;
  readonly forwards: readonly string[];
  readonly exposes: readonly string[];
  readonly requireNative: boolean;
  readonly logger: Logger;
  readonly onDenial: (denial: Denial) => void;
}

export interface RunningPeer {
  readonly identity: string;
  readonly session: string;
  readonly addresses: readonly string[];
  readonly entryPoints: readonly EntryPoint[];
  stop(): Promise<void>;
  /** Resolves when it ended by itself: an error when that is a failure. */
  readonly stopped: Promise<Error | undefined>;
}

/**
 * Resolves once the first netmap and lease are in force and the entry points are open.
 * @throws WirebadgeError, with nothing left open
 */
export async function startPeer(options: PeerOptions): Promise<RunningPeer> {
  const choice = chooseCrypto(options.requireNative ? { require: "native" } : {});
  parseOffers(options); // mistakes are told before anything is enrolled
  const store = SessionStore.open(options.token, options.stateDir);
  const peer = new Peer(options, store, choice);
  try {
    return await peer.start();
  } catch (error) {
    await peer.stop();
    throw error;
  }
}

class Peer {
  readonly #options: PeerOptions;
  readonly #store: SessionStore;
  readonly #choice: CryptoChoice;
  readonly #clock: Clock = new SystemClock();
  readonly #startedMs: number;
  readonly #driver: LoopDriver;
  readonly #denials = new DenialFeed();
  readonly #engine: Engine;
  readonly #stack: UserspaceStack;
  readonly #views: PeerViews;
  readonly #gateway: Gateway;
  readonly #control: ControlClient;
  readonly #discovery: EndpointDiscovery;
  readonly #owner: OwnerCheck;
  readonly #closers: (() => Promise<void> | void)[] = [];
  #udp: DgramUdpPort | undefined;
  #entryPoints: EntryPoints | undefined;
  #signKey: Uint8Array | undefined;
  #ownLeaseEndMs: number | undefined;
  #offsetMs = 0;
  #lastProblem: string | undefined;
  #toldProblem: string | undefined;
  #probedKey: unknown;
  #end: (error: Error | undefined) => void = () => undefined;
  readonly #stopped: Promise<Error | undefined>;
  #stopping: Promise<void> | undefined;

  constructor(options: PeerOptions, store: SessionStore, choice: CryptoChoice) {
    this.#options = options;
    this.#store = store;
    this.#choice = choice;
    const { crypto } = choice;
    this.#startedMs = this.#clock.nowMs();
    this.#driver = new LoopDriver(this.#clock);
    this.#stopped = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#signKey = store.coordinatorSignKey;
    this.#engine = this.#makeEngine(crypto);
    this.#stack = new UserspaceStack({
      random: osRandom,
      mtuBytes: MTU_DEFAULT_BYTES,
      handler: {
        output: this.#driver.stackOutput,
        tcpOpening: (opening) => this.#gateway.tcpOpening(opening),
        udpOpening: (opening) => this.#gateway.udpOpening(opening),
      },
    });
    this.#views = new PeerViews({
      engine: this.#engine,
      turns: this.#driver,
      denials: this.#denials,
      ownAddresses: () => (this.#views.netmap()?.self.addresses ?? []).flatMap((text) => parseAddress(text) ?? []),
      ownSession: () => store.session ?? "",
    });
    this.#gateway = new Gateway({
      view: this.#views,
      turns: this.#driver,
      offers: parseOffers(options),
      network: hostNetwork,
      onFlow: (flow) =>
        options.logger.info(
          {
            event: "flow",
            ...flow,
            source: formatEndpoint(flow.source),
            destination: formatEndpoint(flow.destination),
            dialled: flow.dialled === undefined ? undefined : formatEndpoint(flow.dialled),
            verdict: "ALLOWED_BY_RULE",
          },
          `flow of ${flow.caller.identity} ended`,
        ),
    });
    this.#owner = OwnerCheck.open();
    this.#control = this.#makeControl(crypto);
    this.#discovery = new EndpointDiscovery({
      crypto,
      port: () => this.#udp?.port ?? 0,
      send: (endpoint, bytes) => this.#udp?.send(endpoint, bytes, 0, bytes.length),
      onEndpoints: (endpoints) => this.#control.setEndpoints(endpoints.map(formatEndpoint)),
    });
  }

  async start(): Promise<RunningPeer> {
    this.#udp = await this.#openUdp();
    this.#store.rememberPort(this.#udp.port);
    this.#driver.attach({ engine: this.#engine, stack: this.#stack, udp: this.#udp });
    this.#control.setEndpoints(this.#discovery.current().map(formatEndpoint));
    this.#denials.listen((denial) => this.#options.onDenial(describeDenial(denial, this.#views)));
    this.#control.start();
    await this.#control.ready;
    const dialer = new StackDialer({ view: this.#views, stack: this.#stack, turns: this.#driver });
    this.#entryPoints = await EntryPoints.open({
      ...this.#options,
      dialer,
      turns: this.#driver,
      owner: this.#owner,
      folder: this.#store.path,
    });
    this.#closers.push(() => this.#entryPoints?.close());
    const api = await LocalApiServer.open({
      host: this.#makeHost(),
      path: this.#store.socketPath,
      onFailure: (error) => this.#options.logger.error({ err: error }, "the local API failed to answer"),
    });
    this.#closers.push(() => api.close());
    const { self } = this.#views.netmap()!;
    return {
      identity: self.identity,
      session: self.session,
      addresses: self.addresses,
      entryPoints: this.#allEntryPoints(),
      stop: () => this.stop(),
      stopped: this.#stopped,
    };
  }

  /** Ends everything; safe to call again. */
  stop(): Promise<void> {
    this.#stopping ??= this.#close();
    return this.#stopping;
  }

  async #close(): Promise<void> {
    this.#discovery.stop();
    this.#driver.turn(() => this.#gateway.close());
    for (const close of this.#closers.reverse()) await close();
    await this.#control.stop();
    this.#driver.stop();
    await this.#udp?.close();
    this.#owner.close();
    this.#store.release();
    this.#end(undefined);
  }

  async #openUdp(): Promise<DgramUdpPort> {
    const handler: DatagramHandler = (from, bytes) => {
      if (isProbe(bytes)) this.#discovery.handleAnswer(bytes);
      else this.#driver.onDatagram(from, bytes);
    };
    const { listenPort } = this.#options;
    if (listenPort !== undefined) return await DgramUdpPort.open(listenPort, handler);
    const former = this.#store.listenPort;
    if (former !== undefined) {
      try {
        return await DgramUdpPort.open(former, handler); // the endpoint that others remember
      } catch (error) {
        if (!(error instanceof WirebadgeError) || error.code !== "PORT_TAKEN") throw error;
      }
    }
    return await DgramUdpPort.open(0, handler);
  }

  #makeEngine(crypto: Crypto): Engine {
    const { lastTimestamp, wireguardKey } = this.#store;
    const { logger } = this.#options;
    const sink: EngineSink = {
      ...this.#driver.engineSink,
      denied: (record) => {
        this.#denials.add(fromRecord(record));
        logger.info(
          { event: "denied", denial: record.id, hop: record.hop, reason: record.reason },
          "a flow was denied",
        );
      },
      deniedByPeer: (session, denial) =>
        this.#denials.add({
          ...denial,
          atMs: this.#driver.nowMs(),
          hop: "destination",
          session,
          source: undefined,
          name: undefined,
          ruleId: undefined,
          revision: undefined,
          told: true,
        }),
      flowEnded: (flow) => this.#flowEnded(flow),
      tunnelWanted: (session) => {
        this.#reserveTimestamp();
        this.#control.punch(session);
      },
      tunnelUp: (session) => {
        this.#reserveTimestamp();
        logger.info({ event: "tunnel-up", session, identity: this.#views.identityOf(session) }, "tunnel up");
      },
      tunnelFailed: (session) =>
        logger.warn(
          { event: "tunnel-failed", session, identity: this.#views.identityOf(session) },
          "no answer from a peer",
        ),
    };
    return new Engine({
      crypto,
      random: osRandom,
      keyPair: { privateKey: wireguardKey, publicKey: crypto.publicKey(wireguardKey) },
      mode: "badge",
      mtuBytes: MTU_DEFAULT_BYTES,
      sink,
      stopwatch,
      cpuStopwatch,
      leases: {
        verify: (bytes) => {
          const lease = this.#signKey === undefined ? "lease-bad-signature" : verifyLease(crypto, this.#signKey, bytes);
          if (typeof lease === "string") return undefined;
          return { session: lease.session, epoch: lease.epoch, serial: lease.serial, endMs: leaseEndMs(lease) };
        },
      },
      ...(lastTimestamp === undefined ? {} : { lastTimestamp }),
    });
  }

  #makeControl(crypto: Crypto): ControlClient {
    const { logger, routes, serves } = this.#options;
    const { token } = this.#store;
    const control = new ControlClient({
      url: this.#store.url,
      coordinatorKey: this.#store.coordinatorKey,
      signSeed: this.#store.signSeed,
      wireguardKey: this.#store.wireguardKey,
      session: this.#store.session,
      enrolment: token === undefined ? undefined : { tokenId: token.id, secret: token.secret },
      offers: { routes: [...routes], serves: serves.map(offeredName) },
      kept: this.#store.kept,
      crypto,
      random: osRandom,
      clock: this.#clock,
      software: SOFTWARE,
    });
    control.on("welcome", (grant) => {
      this.#signKey = grant.coordinatorSignKey;
      try {
        this.#store.granted(grant);
      } catch (error) {
        if (!(error instanceof WirebadgeError)) throw error;
        control.refuse(error);
      }
      this.#tellStateProblem();
    });
    control.on("kept", (kept) => {
      this.#store.keep(kept);
      this.#tellStateProblem();
    });
    control.on("netmap", (view) => this.#applyNetmap(view));
    control.on("lease", (bytes, lease) => {
      this.#ownLeaseEndMs = leaseEndMs(lease);
      this.#driver.turn((nowMs) =>
        this.#engine.setOwnLease(nowMs, { bytes, epoch: lease.epoch, serial: lease.serial, endMs: leaseEndMs(lease) }),
      );
    });
    control.on("time", (offsetMs) => {
      this.#offsetMs = offsetMs;
      this.#engine.setCoordinatorOffset(offsetMs);
    });
    control.on("punch", (session) => this.#driver.turn((nowMs) => this.#engine.punch(nowMs, session)));
    control.on("state", (state) => {
      if (state === "connected") this.#lastProblem = undefined;
      logger.info({ event: "control", state }, `coordinator: ${state}`);
    });
    control.on("problem", (error, final) => {
      this.#lastProblem = error.message;
      logger.warn({ event: "control-problem", code: error.code, final }, error.message);
      if (final) this.#fail(error);
    });
    control.on("revoked", (error) => {
      this.#driver.turn(() => this.#engine.endOwnLease());
      this.#fail(error);
    });
    return control;
  }

  #applyNetmap(view: NetmapView): void {
    const prefixes = [view.network.ula, view.network.pool4].flatMap((text) => parsePrefix(text) ?? []);
    this.#discovery.setOverlay(prefixes);
    this.#views.setNetmap(view);
    this.#driver.turn((nowMs) => {
      const desired = desiredStateOf(view, this.#gateway.transitPrefixes());
      for (const refused of this.#engine.apply(nowMs, desired)) {
        this.#options.logger.warn({ event: "peer-refused", ...refused }, "a peer of the netmap can't be one");
      }
      this.#stack.setLocalAddresses(desired.addresses);
      this.#stack.setTransit(desired.transit);
      this.#gateway.netmapChanged();
    });
    const { probe } = this.#control;
    if (probe !== undefined && probe.key !== this.#probedKey) {
      this.#probedKey = probe.key;
      void this.#discovery.start(probe.key, probe.servers);
    }
  }

  #makeHost(): PeerHost {
    const { crypto, reason } = this.#choice;
    return new PeerHost({
      engine: this.#engine,
      stack: this.#stack,
      turns: this.#driver,
      views: this.#views,
      gateway: this.#gateway,
      denials: this.#denials,
      facts: {
        version: SOFTWARE_VERSION,
        startedMs: this.#startedMs,
        publicKey: toBase64(crypto.publicKey(this.#store.wireguardKey)),
        listenPort: this.#udp!.port,
        crypto: { name: crypto.name, reason: reason ?? "" },
        ownerCheck: this.#owner.mode,
        entryPoints: () => this.#allEntryPoints(),
        coordinator: () => ({
          url: this.#store.url,
          connected: this.#control.state === "connected",
          lastError: this.#lastProblem,
        }),
        leaseEndMs: () => this.#ownLeaseEndMs,
        coordinatorOffsetMs: () => this.#offsetMs,
        stateProblem: () => this.#store.problem?.message,
        shellCounters: () => ({
          ...prefixed("gateway", this.#gateway.counters),
          ...prefixed("stack", this.#stack.counters),
          ...prefixed("table", { ...this.#engine.holdings() }),
          ...prefixed("udp", this.#udp!.counters),
          ...this.#entryPoints!.counters(),
        }),
      },
    });
  }

  #allEntryPoints(): EntryPoint[] {
    return [
      ...(this.#entryPoints?.list() ?? []),
      { kind: "local-api", listen: this.#store.socketPath, protection: "folder" },
    ];
  }

  /** What the filter ended is cut for the sockets behind it too: no packet would tell them. */
  #flowEnded(flow: FlowRecord): void {
    const { end, opener, protocol } = flow;
    if (end === "idle" || end === "closed" || end === "evicted") return;
    const source = { address: flow.source, port: flow.sourcePort };
    const destination = { address: flow.destination, port: flow.destinationPort };
    const [local, remote] = opener === "local" ? [source, destination] : [destination, source];
    if (protocol === PROTOCOL_TCP) this.#stack.cutTcp(local, remote);
    // UDP flows and dials in progress; after a revision the gateway has judged its flows itself.
    if (end !== "policy") this.#gateway.cutSession(flow.session);
  }

  #reserveTimestamp(): void {
    this.#store.reserveTimestamp(this.#driver.nowMs(), this.#engine.lastTimestamp);
    this.#tellStateProblem();
  }

  /** Once for each stretch of failures; status has it as long as it lasts. */
  #tellStateProblem(): void {
    const { problem } = this.#store;
    if (problem !== undefined && this.#toldProblem !== problem.message)
      this.#options.logger.error({ event: "state-problem", code: problem.code, hint: problem.hint }, problem.message);
    this.#toldProblem = problem?.message;
  }

  #fail(error: Error): void {
    this.#end(error);
    void this.stop();
  }
}

/** `staging=127.0.0.1:8080` offers "staging"; where it goes is this host's own matter. "all" is offered as `*`. */
function offeredName(text: string): string {
  const name = text.split("=")[0]!;
  return text === "all" ? "*" : name;
}

function prefixed(prefix: string, counters: Readonly<Record<string, number>>): Record<string, number> {
  const entries = Object.entries(counters).filter(([, count]) => count > 0);
  return Object.fromEntries(entries.map(([name, count]) => [`${prefix}-${name}`, count]));
}
