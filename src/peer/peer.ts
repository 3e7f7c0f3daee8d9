// `wirebadge up`: one session, composed. State → crypto → packet path (packet-path.ts) and userspace stack → control
// channel → gateway and entry points. Everything that decides is in the engine; here it is fed, and what it says is
// told on.
import { setTimeout as delay } from "node:timers/promises";
import { formatEndpoint, type Prefix, parseAddress, parsePrefix } from "../base/address.ts";
import { toBase64 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { LEAVE_MAX_MS, MTU_DEFAULT_BYTES } from "../base/limits.ts";
import { leaseEndMs } from "../control/lease.ts";
import type { NetmapView } from "../control/netmap.ts";
import type { Crypto } from "../crypto/provider.ts";
import type { FlowRecord } from "../filter/contract.ts";
import { type Clock, SystemClock } from "../io/clock.ts";
import { type CryptoChoice, chooseCrypto } from "../io/crypto-choice.ts";
import type { TunDevice } from "../io/ffi/tun-device.ts";
import { osRandom } from "../io/os-random.ts";
import { openPacketArena, type PacketArena } from "../io/packet-arena.ts";
import { SOFTWARE, SOFTWARE_VERSION } from "../io/version.ts";
import type { Netstack } from "../netstack/contract.ts";
import { UserspaceStack } from "../netstack/stack.ts";
import { NAME_DIAL_PORT } from "../policy/world.ts";
import { PROTOCOL_TCP } from "../wire/packet.ts";
import { ControlClient } from "./control-client.ts";
import { DenialFeed, fromRecord } from "./denial-feed.ts";
import { desiredStateOf } from "./desired-state.ts";
import { EndpointDiscovery } from "./endpoint-discovery.ts";
import { EntryPoints } from "./entry-points.ts";
import { Gateway } from "./gateway.ts";
import { forwardedRoutes, parseOffers } from "./gateway-offers.ts";
import { LocalApiServer } from "./local-api.ts";
import type { Denial, EntryPoint } from "./local-api-schema.ts";
import type { Logger } from "./logger.ts";
import { LoopPath } from "./loop-path.ts";
import { StackDialer } from "./overlay-dialer.ts";
import { OwnerCheck } from "./owner.ts";
import { type PacketPath, type PacketPathEvents, prefixed } from "./packet-path.ts";
import { describeDenial, PeerHost } from "./peer-host.ts";
import { PeerViews } from "./peer-views.ts";
import { hostNetwork } from "./real-network.ts";
import { SessionStore } from "./session-store.ts";
import { BadgeNames, type NamesShown } from "./tun/badge-names.ts";
import { journalFolder } from "./tun/host-network.ts";
import { openBadgeDevice, TunPath } from "./tun-path.ts";
import type { Turns } from "./turns.ts";

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
  /** A TUN device of that name for the whole host; "": the first free one. Undefined: rootless. */
  readonly tun: string | undefined;
  /** With `tun`: an agent's badge may be every local process's. */
  readonly shared: boolean;
  /** With `tun`: the host's resolver is told of the network's names. */
  readonly dns: boolean;
  /** With `tun`: the kernel forwards packets of offered routes. */
  readonly ipForward: boolean;
  readonly requireNative: boolean;
  readonly logger: Logger;
  readonly onDenial: (denial: Denial) => void;
  /** In the process of another program (SDK). Without: a process of its own. */
  readonly embedded?: EmbeddedOptions;
}

/** Nothing of the peer then keeps the process alive, and the host's other users are given no entry point. */
export interface EmbeddedOptions {
  /** The session ends with the process: `stateDir` is not used, and the coordinator is told at the end. */
  readonly inMemory: boolean;
  /** Where the coordinator is reached, if not where the token says. */
  readonly url: string | undefined;
  /** Ends the start. */
  readonly signal: AbortSignal;
  readonly onNetmap: (view: NetmapView) => void;
  readonly onControl: (connected: boolean) => void;
}

/** For whoever speaks to the network from within this process. */
export interface PeerInside {
  readonly dialer: StackDialer;
  readonly stack: Netstack;
  readonly turns: Turns;
  readonly views: PeerViews;
  readonly host: PeerHost;
}

export interface RunningPeer {
  readonly inside: PeerInside;
  readonly identity: string;
  readonly session: string;
  readonly addresses: readonly string[];
  readonly entryPoints: readonly EntryPoint[];
  /** The TUN device's name. */
  readonly tun?: string;
  /** How the host asks for names of the network; with a device. */
  readonly names?: NamesShown;
  stop(): Promise<void>;
  /** Resolves when it ended by itself: an error when that is a failure. */
  readonly stopped: Promise<Error | undefined>;
}

/**
 * Resolves once the first netmap and lease are in force and the entry points are open.
 * @throws WirebadgeError, with nothing left open
 */
export async function startPeer(options: PeerOptions): Promise<RunningPeer> {
  const memory = options.tun === undefined ? openPacketArena() : undefined; // with a device the data thread has its own
  const choice = chooseCrypto({ arena: memory?.arena, ...(options.requireNative ? { require: "native" } : {}) });
  parseOffers(options); // mistakes, and what this machine can't do, are told before anything is enrolled
  const host = options.tun === undefined ? undefined : openHost(options.tun);
  let store: SessionStore;
  try {
    store = openStore(options);
  } catch (error) {
    host?.tun.close();
    throw error;
  }
  const peer = new Peer(options, store, { ...choice, memory }, host);
  try {
    return await peer.start();
  } catch (error) {
    await peer.stop().catch((failure: unknown) => {
      options.logger.error({ event: "stop-failed", err: failure }, "not all was undone");
    });
    throw error;
  }
}

interface ChosenCrypto extends CryptoChoice {
  /** In which it seals and opens in place. */
  readonly memory: PacketArena | undefined;
}

/** @throws WirebadgeError */
function openStore({ token, stateDir, embedded }: PeerOptions): SessionStore {
  if (embedded?.inMemory !== true) return SessionStore.open(token, stateDir, embedded?.url);
  if (token !== undefined) return SessionStore.inMemory(token, embedded.url);
  throw new WirebadgeError("USAGE", "there is no token to join with", {
    hint: "make one by `wirebadge token create --as agent:NAME`",
  });
}

interface OpenedHost {
  readonly tun: TunDevice;
  readonly journalFolder: string;
}

function openHost(name: string): OpenedHost {
  const folder = journalFolder(process.env);
  return { tun: openBadgeDevice(name), journalFolder: folder };
}

class Peer {
  readonly #options: PeerOptions;
  readonly #store: SessionStore;
  readonly #choice: ChosenCrypto;
  readonly #clock: Clock = new SystemClock();
  readonly #startedMs: number;
  readonly #path: PacketPath;
  readonly #host: OpenedHost | undefined;
  readonly #denials = new DenialFeed();
  readonly #stack: UserspaceStack;
  readonly #views: PeerViews;
  readonly #gateway: Gateway;
  readonly #control: ControlClient;
  readonly #discovery: EndpointDiscovery;
  readonly #owner: OwnerCheck;
  readonly #closers: (() => Promise<void> | void)[] = [];
  #names: BadgeNames | undefined;
  #entryPoints: EntryPoints | undefined;
  #ownLeaseEndMs: number | undefined;
  #offsetMs = 0;
  #lastError: WirebadgeError | undefined;
  #toldProblem: string | undefined;
  #probedKey: unknown;
  #end: (error: Error | undefined) => void = () => undefined;
  readonly #stopped: Promise<Error | undefined>;
  #stopping: Promise<void> | undefined;

  constructor(options: PeerOptions, store: SessionStore, choice: ChosenCrypto, host: OpenedHost | undefined) {
    this.#options = options;
    this.#host = host;
    this.#store = store;
    this.#choice = choice;
    const { crypto } = choice;
    const offers = parseOffers(options);
    this.#startedMs = this.#clock.nowMs();
    this.#stopped = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#path = this.#makePath(crypto, host, offers.hostPatterns.length > 0 ? [NAME_DIAL_PORT] : []);
    this.#stack = new UserspaceStack({
      random: osRandom,
      mtuBytes: MTU_DEFAULT_BYTES,
      isSettled: true,
      memory: choice.memory?.stack,
      handler: {
        output: this.#path.stackOutput,
        tcpOpening: (opening) => this.#gateway.tcpOpening(opening),
        udpOpening: (opening) => this.#gateway.udpOpening(opening),
      },
    });
    this.#views = new PeerViews({
      engine: this.#path.judge,
      turns: this.#path.turns,
      denials: this.#denials,
      ownAddresses: () => (this.#views.netmap()?.self.addresses ?? []).flatMap((text) => parseAddress(text) ?? []),
      ownSession: () => store.session ?? "",
      tellDenial: (session, record) => this.#path.tellDenial(session, record),
    });
    this.#gateway = new Gateway({
      view: this.#views,
      turns: this.#path.turns,
      offers,
      network: { ...hostNetwork, intoOverlay: () => this.#path.device?.routes ?? [] },
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
    this.#owner = options.embedded === undefined ? OwnerCheck.open() : OwnerCheck.none();
    this.#control = this.#makeControl(crypto);
    this.#discovery = new EndpointDiscovery({
      crypto,
      port: () => this.#path.port,
      send: (endpoint, bytes) => this.#path.sendProbe(endpoint, bytes),
      onEndpoints: (endpoints) => this.#control.setEndpoints(endpoints.map(formatEndpoint)),
    });
  }

  async start(): Promise<RunningPeer> {
    if (this.#store.identity !== undefined) this.#checkShared(this.#store.identity);
    await this.#path.open(this.#stack, this.#options.listenPort, this.#store.listenPort);
    void this.#path.ended.then((error) => this.#fail(error));
    if (this.#store.coordinatorSignKey !== undefined) this.#path.setSignKey(this.#store.coordinatorSignKey);
    this.#store.rememberPort(this.#path.port);
    this.#control.setEndpoints(this.#discovery.current().map(formatEndpoint));
    this.#denials.listen((denial) => this.#options.onDenial(describeDenial(denial, this.#views)));
    this.#control.start();
    await this.#ready();
    await this.#path.enter();
    await this.#openNames();
    const dialer = new StackDialer({ view: this.#views, stack: this.#stack, turns: this.#path.turns });
    this.#entryPoints = await EntryPoints.open({
      ...this.#options,
      dialer,
      turns: this.#path.turns,
      owner: this.#owner,
      folder: this.#store.path,
    });
    this.#closers.push(() => this.#entryPoints?.close());
    const host = this.#makeHost();
    await this.#openLocalApi(host);
    const { self } = this.#views.netmap()!;
    return {
      inside: { dialer, stack: this.#stack, turns: this.#path.turns, views: this.#views, host },
      identity: self.identity,
      session: self.session,
      addresses: self.addresses,
      entryPoints: this.#allEntryPoints(),
      ...(this.#path.device === undefined ? {} : { tun: this.#path.device.name }),
      ...(this.#names === undefined ? {} : { names: this.#names.shown }),
      stop: () => this.stop(),
      stopped: this.#stopped,
    };
  }

  /** @throws WirebadgeError of what waiting can't mend, or of the last attempt when the signal ended the wait */
  async #ready(): Promise<void> {
    const { embedded } = this.#options;
    const giveUp = (): void => {
      this.#control.refuse(this.#lastError ?? new WirebadgeError("TIMEOUT", "joining was given up"));
    };
    if (embedded?.signal.aborted === true) giveUp();
    embedded?.signal.addEventListener("abort", giveUp, { once: true });
    try {
      await this.#control.ready;
    } finally {
      embedded?.signal.removeEventListener("abort", giveUp);
    }
  }

  async #openLocalApi(host: PeerHost): Promise<void> {
    const { socketPath } = this.#store;
    if (socketPath === undefined) return;
    const api = await LocalApiServer.open({
      host,
      path: socketPath,
      onFailure: (error) => this.#options.logger.error({ err: error }, "the local API failed to answer"),
    });
    if (this.#options.embedded !== undefined) api.unref();
    this.#closers.push(() => api.close());
  }

  /** Ends everything; safe to call again. */
  stop(): Promise<void> {
    this.#stopping ??= this.#close();
    return this.#stopping;
  }

  async #close(): Promise<void> {
    this.#discovery.stop();
    this.#path.turns.turn(() => this.#gateway.close());
    for (const close of this.#closers.reverse()) await close();
    await this.#leave();
    await this.#control.stop();
    try {
      await this.#closeHost();
    } finally {
      this.#owner.close();
      this.#store.release();
      this.#end(undefined);
    }
  }

  /** Nobody can come back to a session whose keys are in memory alone: it ends now, not with its lease. */
  async #leave(): Promise<void> {
    if (this.#options.embedded?.inMemory !== true || this.#control.state !== "connected") return;
    try {
      await Promise.race([this.#control.leave(), delay(LEAVE_MAX_MS)]);
    } catch (error) {
      this.#options.logger.warn({ event: "leave", err: error }, "the coordinator was not told of the session's end");
    }
  }

  /** The resolver's address leads into the device, so its host's own is told last and forgets it first. */
  async #closeHost(): Promise<void> {
    try {
      await this.#names?.close();
    } finally {
      await this.#path.close();
    }
  }

  async #openNames(): Promise<void> {
    if (this.#host === undefined) return;
    const { dns, logger } = this.#options;
    this.#names = await BadgeNames.open({
      stack: this.#stack,
      turns: this.#path.turns,
      netmap: () => this.#views.netmap(),
      device: this.#host.tun.name,
      dns,
      journalFolder: this.#host.journalFolder,
      logger,
    });
  }

  #makePath(crypto: Crypto, host: OpenedHost | undefined, stackPorts: readonly number[]): PacketPath {
    const { lastTimestamp, wireguardKey } = this.#store;
    const { logger, requireNative } = this.#options;
    const keyPair = { privateKey: wireguardKey, publicKey: crypto.publicKey(wireguardKey) };
    const offers = parseOffers(this.#options);
    const forwarded = this.#options.ipForward
      ? (view: NetmapView): readonly Prefix[] => forwardedRoutes(offers, view)
      : undefined;
    const background = this.#options.embedded !== undefined;
    const events = this.#pathEvents();
    const options = { crypto, keyPair, clock: this.#clock, logger, lastTimestamp, events, background };
    return host === undefined
      ? new LoopPath({ ...options, arena: this.#choice.memory?.arena })
      : new TunPath({
          ...options,
          ...host,
          requireNative,
          stackPorts,
          forwarded,
          coordinatorAddress: () => this.#control.remoteAddress,
        });
  }

  #pathEvents(): PacketPathEvents {
    const { logger } = this.#options;
    return {
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
          atMs: this.#clock.nowMs(),
          hop: "destination",
          session,
          source: undefined,
          name: undefined,
          ruleId: undefined,
          revision: undefined,
          told: true,
        }),
      flowEnded: (flow) => this.#flowEnded(flow),
      tunnelWanted: (session, lastTimestamp) => {
        this.#reserveTimestamp(lastTimestamp);
        this.#control.punch(session);
      },
      tunnelUp: (session, lastTimestamp) => {
        this.#reserveTimestamp(lastTimestamp);
        logger.info({ event: "tunnel-up", session, identity: this.#views.identityOf(session) }, "tunnel up");
      },
      tunnelFailed: (session) =>
        logger.warn(
          { event: "tunnel-failed", session, identity: this.#views.identityOf(session) },
          "no answer from a peer",
        ),
      probeAnswer: (bytes) => {
        this.#discovery.handleAnswer(bytes);
      },
    };
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
      background: this.#options.embedded !== undefined,
    });
    control.on("welcome", (grant) => {
      this.#path.setSignKey(grant.coordinatorSignKey);
      try {
        this.#store.granted(grant);
        this.#checkShared(grant.identity);
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
      this.#path.setOwnLease({ bytes, epoch: lease.epoch, serial: lease.serial, endMs: leaseEndMs(lease) });
    });
    control.on("time", (offsetMs) => {
      this.#offsetMs = offsetMs;
      this.#path.setCoordinatorOffset(offsetMs);
    });
    control.on("punch", (session) => this.#path.punch(session));
    control.on("state", (state) => {
      if (state === "connected") this.#lastError = undefined;
      if (state === "connected" || state === "disconnected") this.#options.embedded?.onControl(state === "connected");
      logger.info({ event: "control", state }, `coordinator: ${state}`);
    });
    control.on("problem", (error, final) => {
      this.#lastError = error;
      logger.warn({ event: "control-problem", code: error.code, final }, error.message);
      if (final) this.#fail(error);
    });
    control.on("revoked", (error) => {
      this.#path.endOwnLease();
      this.#fail(error);
    });
    return control;
  }

  #applyNetmap(view: NetmapView): void {
    const prefixes = [view.network.ula, view.network.pool4].flatMap((text) => parsePrefix(text) ?? []);
    this.#discovery.setOverlay(prefixes);
    this.#views.setNetmap(view);
    this.#path.turns.turn((nowMs) => {
      const desired = desiredStateOf(view, this.#gateway.transitPrefixes());
      this.#path.apply(nowMs, desired, view);
      this.#gateway.netmapChanged();
    });
    this.#options.embedded?.onNetmap(view);
    const { probe } = this.#control;
    if (probe !== undefined && probe.key !== this.#probedKey) {
      this.#probedKey = probe.key;
      void this.#discovery.start(probe.key, probe.servers);
    }
  }

  #makeHost(): PeerHost {
    const { crypto, reason } = this.#choice;
    return new PeerHost({
      path: this.#path,
      stack: this.#stack,
      views: this.#views,
      gateway: this.#gateway,
      denials: this.#denials,
      facts: {
        version: SOFTWARE_VERSION,
        startedMs: this.#startedMs,
        publicKey: toBase64(crypto.publicKey(this.#store.wireguardKey)),
        listenPort: this.#path.port,
        crypto: { name: crypto.name, reason: reason ?? "" },
        ownerCheck: this.#owner.mode,
        entryPoints: () => this.#allEntryPoints(),
        coordinator: () => ({
          url: this.#store.url,
          connected: this.#control.state === "connected",
          lastError: this.#lastError?.message,
        }),
        leaseEndMs: () => this.#ownLeaseEndMs,
        coordinatorOffsetMs: () => this.#offsetMs,
        stateProblem: () => this.#store.problem?.message,
        shellCounters: () => ({
          ...prefixed("gateway", this.#gateway.counters),
          ...prefixed("stack", this.#stack.counters),
          ...prefixed("names", this.#names?.counters ?? {}),
          ...this.#entryPoints!.counters(),
        }),
      },
    });
  }

  #allEntryPoints(): EntryPoint[] {
    const { socketPath } = this.#store;
    const points = this.#entryPoints?.list() ?? [];
    return socketPath === undefined
      ? points
      : [...points, { kind: "local-api", listen: socketPath, protection: "folder" }];
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

  /**
   * With a device every local process wears the badge: that of an agent, which is one process's by its meaning, only
   * where its user has said so.
   */
  #checkShared(identity: string): void {
    const { tun, shared } = this.#options;
    if (tun === undefined || shared || !identity.startsWith("agent:")) return;
    throw new WirebadgeError("FORBIDDEN", `--tun would give the badge of ${identity} to every process of this host`, {
      hint: "add --shared if that is meant; else leave out --tun, or join with a token of kind node",
    });
  }

  #reserveTimestamp(lastTimestamp: Uint8Array | undefined): void {
    this.#store.reserveTimestamp(this.#clock.nowMs(), lastTimestamp);
    this.#tellStateProblem();
  }

  /** Once for each stretch of failures; status has it as long as it lasts. */
  #tellStateProblem(): void {
    const { problem } = this.#store;
    if (problem !== undefined && this.#toldProblem !== problem.message)
      this.#options.logger.error({ event: "state-problem", code: problem.code, hint: problem.hint }, problem.message);
    this.#toldProblem = problem?.message;
  }

  #fail(error: Error | undefined): void {
    this.#end(error);
    this.stop().catch((failure: unknown) => {
      this.#options.logger.error({ event: "stop-failed", err: failure }, "not all was undone");
    });
  }
}

/** `staging=127.0.0.1:8080` offers "staging"; where it goes is this host's own matter. "all" is offered as `*`. */
function offeredName(text: string): string {
  const name = text.split("=")[0]!;
  return text === "all" ? "*" : name;
}
