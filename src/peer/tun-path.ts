// The packet path of a whole host: a TUN device, and a data thread that moves the packets and alone judges them. Here,
// on the main thread, an engine that never sends nor receives a datagram is told the same, for what people and the
// gateway ask; the userspace stack gets what is not the kernel's from the data thread, and gives its packets to it.
import { type Address, type Endpoint, equalEndpoint, formatPrefix, hostPrefix, type Prefix } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { MTU_DEFAULT_BYTES } from "../base/limits.ts";
import type { NetmapView } from "../control/netmap.ts";
import type { DesiredState, OwnLease } from "../engine/desired-state.ts";
import { Engine } from "../engine/engine.ts";
import { quietSink } from "../engine/quiet-sink.ts";
import type { DenialRecord } from "../filter/contract.ts";
import { cpuStopwatch, sharedMs, stopwatch } from "../io/clock.ts";
import { Arena } from "../io/ffi/arena.ts";
import { TUN_ARENA_BYTES, TunDevice } from "../io/ffi/tun-device.ts";
import type { UdpPair } from "../io/ffi/udp-socket.ts";
import { osRandom } from "../io/os-random.ts";
import type { Netstack } from "../netstack/contract.ts";
import { DataThread, type DataThreadRecovery } from "./data-thread.ts";
import type { DataThreadNotice, DataThreadStatus } from "./data-thread-messages.ts";
import { LoopDriver } from "./driver.ts";
import type { ForwardPlan } from "./forward-side.ts";
import { routePrefixes } from "./gateway-offers.ts";
import { eachPacket, PacketBatch } from "./packet-batch.ts";
import {
  openPort,
  type PacketPath,
  type PathDevice,
  type PathOptions,
  type PathReport,
  prefixed,
} from "./packet-path.ts";
import { BadgeHost } from "./tun/badge-host.ts";
import { type BadgePlan, planBadge } from "./tun/badge-plan.ts";
import { BadgeUapi } from "./tun/badge-uapi.ts";
import { type ForwardHostPlan, HostForward } from "./tun/host-forward.ts";
import { closeSockets, openedOf, openSockets } from "./tun/outer-sockets.ts";
import { resolverAddressesOf } from "./tun/overlay-names.ts";
import { openUapi } from "./tun/uapi-open.ts";
import type { UapiServer } from "./tun/uapi-server.ts";

const FIRST_FREE = "wirebadge%d"; // the kernel puts in the lowest number that is free

export interface TunPathOptions extends PathOptions {
  /** From `openBadgeDevice`; closed with the path. */
  readonly tun: TunDevice;
  readonly requireNative: boolean;
  readonly journalFolder: string;
  /** Where the control channel leads now, or led last. */
  readonly coordinatorAddress: () => Address | undefined;
  /** Routes that the kernel forwards, of that netmap; undefined: the userspace gateway serves them all. */
  readonly forwarded: ((view: NetmapView) => readonly Prefix[]) | undefined;
  /** TCP ports of the own addresses that the stack answers. */
  readonly stackPorts: readonly number[];
}

/** "" asks for the first of wirebadge0, wirebadge1 … that is free. @throws WirebadgeError as TunDevice.open */
export function openBadgeDevice(name: string): TunDevice {
  return TunDevice.open(new Arena(TUN_ARENA_BYTES), name === "" ? FIRST_FREE : name);
}

export class TunPath implements PacketPath {
  readonly turns: LoopDriver;
  readonly judge: Engine;
  readonly #options: TunPathOptions;
  readonly #ended = Promise.withResolvers<Error | undefined>();
  readonly #toThread = new PacketBatch();
  #thread: DataThread | undefined;
  #udp: UdpPair | undefined;
  #stack: Netstack | undefined;
  #host: BadgeHost | undefined;
  #forward: HostForward | undefined;
  #uapi: UapiServer | undefined;
  #view: NetmapView | undefined;
  #state: DesiredState | undefined;
  #lastStatus: DataThreadStatus | undefined;
  #offsetMs = 0;
  #packetsLost = 0;
  #isClosing = false;

  constructor(options: TunPathOptions) {
    const { crypto, keyPair, clock } = options;
    this.#options = options;
    this.turns = new LoopDriver(clock);
    this.judge = new Engine({
      crypto,
      random: osRandom,
      keyPair,
      mode: "badge",
      mtuBytes: MTU_DEFAULT_BYTES,
      sink: {
        sendDatagram: () => undefined, // it has no tunnels and is given no packets
        deliverPacket: () => undefined,
        ...quietSink,
      },
      stopwatch,
      cpuStopwatch,
      leases: { verify: () => undefined }, // leases come by `learnLease`
    });
  }

  get ended(): Promise<Error | undefined> {
    return this.#ended.promise;
  }

  get port(): number {
    return this.#udp?.port ?? 0;
  }

  get device(): PathDevice {
    return { name: this.#options.tun.name, mtuBytes: MTU_DEFAULT_BYTES, routes: this.routes };
  }

  /** Prefixes that this host reaches by the device. */
  get routes(): readonly Prefix[] {
    return this.#host?.routes ?? [];
  }

  readonly stackOutput = (nowMs: number, buffer: Uint8Array, offset: number, length: number): void =>
    this.turns.stackOutput(nowMs, buffer, offset, length);

  async open(stack: Netstack, port: number | undefined, former: number | undefined): Promise<void> {
    const { keyPair, lastTimestamp, logger, requireNative, tun } = this.#options;
    this.#stack = stack;
    this.turns.attach({
      engine: this.judge,
      stack,
      udp: undefined,
      outlet: {
        put: (buffer, offset, length) => this.#putPacket(buffer, offset, length),
        flush: () => this.#flushPackets(),
      },
    });
    this.#udp = await openPort(port, former, (wanted) => openSockets(wanted, 0));
    this.#thread = await DataThread.start({
      tun: tun.opened,
      udp: openedOf(this.#udp),
      keyPair,
      mode: "badge",
      mtuBytes: MTU_DEFAULT_BYTES,
      requireNative,
      logger,
      lastTimestamp,
      onNotice: (notice) => this.#onNotice(notice),
      onFailed: (last) => this.#recover(last),
    });
    void this.#thread.ended.then(this.#ended.resolve);
  }

  apply(nowMs: number, state: DesiredState, view: NetmapView): void {
    const { logger, stackPorts } = this.#options;
    this.#view = view;
    this.#state = state;
    this.judge.apply(nowMs, state);
    const reserved = resolverAddressesOf(view);
    // The own addresses are the kernel's, whose packets to the stack come from there: were they the stack's own, it
    // would take those for forged.
    this.#stack?.setLocalAddresses(reserved);
    this.#stack?.setTransit([...state.transit, ...state.addresses.map(hostPrefix)]);
    const forward = this.#forwardPlan(view);
    const routes = new Set((forward === undefined ? [] : routePrefixes(view)).map(formatPrefix));
    const transit = state.transit.filter((prefix) => !routes.has(formatPrefix(prefix)));
    const prefixes = [...transit, ...reserved.map(hostPrefix)];
    const plan = { prefixes, tcpPorts: stackPorts, ownAddresses: state.addresses, forward };
    this.#running.tell(() => ({ kind: "stack", plan }));
    this.#running.apply(state).then(
      (refused) => {
        for (const row of refused) {
          logger.warn({ event: "peer-refused", ...row }, "a peer of the netmap can't be one");
        }
      },
      () => undefined, // the thread that starts in its place begins with this state
    );
    this.#host?.follow(this.#planBadge(view));
    this.#followForward();
  }

  #planBadge(view: NetmapView): BadgePlan {
    return planBadge(view, this.#options.coordinatorAddress());
  }

  #forwardPlan(view: NetmapView): (ForwardPlan & ForwardHostPlan) | undefined {
    const { forwarded, tun } = this.#options;
    if (forwarded === undefined) return undefined;
    const { addresses, overlay } = this.#planBadge(view);
    return {
      device: tun.name,
      ownAddresses: addresses.map(({ address }) => address),
      served: forwarded(view),
      overlay,
      mtuBytes: MTU_DEFAULT_BYTES,
    };
  }

  #followForward(): void {
    const plan = this.#view === undefined ? undefined : this.#forwardPlan(this.#view);
    if (plan === undefined) return;
    this.#forward?.update(plan).catch((error: unknown) => {
      this.#options.logger.error(
        { event: "forward-failed", err: error },
        "what is forwarded is not as the netmap has it",
      );
    });
  }

  async enter(): Promise<void> {
    const { journalFolder, logger, tun } = this.#options;
    assert(this.#view !== undefined, "a netmap is in force");
    this.#uapi = await openUapi({
      name: tun.name,
      backend: new BadgeUapi({
        listenPort: () => this.port,
        peers: () => this.#view?.peers ?? [],
        report: () => this.report(),
      }),
      readOnly: true,
      onRefusedSet: () =>
        logger.warn({ event: "uapi-set-refused", device: tun.name }, "wg(8) was refused to set a coordinator's device"),
      logger,
      stop: async () => this.#ended.resolve(undefined),
    });
    const plan = this.#planBadge(this.#view);
    this.#host = await BadgeHost.up({ name: tun.name, mtuBytes: MTU_DEFAULT_BYTES, journalFolder, logger }, plan);
    const forward = this.#forwardPlan(this.#view);
    if (forward !== undefined) this.#forward = await HostForward.up(forward, { journalFolder, logger });
    this.#host.follow(this.#planBadge(this.#view)); // it may have changed meanwhile
    this.#followForward();
  }

  setSignKey(key: Uint8Array): void {
    this.#running.tell(() => ({ kind: "sign-key", key }));
  }

  setOwnLease(lease: OwnLease): void {
    this.turns.turn((nowMs) => this.judge.setOwnLease(nowMs, lease));
    this.#running.tell(() => ({ kind: "own-lease", lease }));
  }

  endOwnLease(): void {
    this.turns.turn(() => this.judge.endOwnLease());
    this.#running.tell(() => ({ kind: "own-lease", lease: undefined }));
  }

  setCoordinatorOffset(offsetMs: number): void {
    this.#offsetMs = offsetMs;
    this.judge.setCoordinatorOffset(offsetMs);
    this.#running.tell(() => ({
      kind: "time",
      coordinatorMs: this.turns.nowMs() + this.#offsetMs,
      sharedMs: sharedMs(),
    }));
  }

  punch(session: string): void {
    this.#running.reach([session]);
  }

  sendProbe(to: Endpoint, bytes: Uint8Array): void {
    this.#thread?.command({ kind: "probe", to, bytes });
  }

  tellDenial(session: string, denial: DenialRecord): void {
    this.#thread?.command({ kind: "tell-denial", session, denial });
  }

  /** Of the data thread as it is; while it starts again, as it last was. */
  async report(): Promise<PathReport> {
    const status = await this.#thread?.status().catch(() => undefined);
    this.#lastStatus = status ?? this.#lastStatus;
    const { peers = [], counters = {} } = this.#lastStatus ?? {};
    const udp = { name: "native", reason: "" };
    return { peers, udp, counters: { ...counters, ...prefixed("stack", { "output-lost": this.#packetsLost }) } };
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    this.turns.stop();
    await this.#uapi?.close();
    try {
      try {
        await this.#forward?.down();
      } finally {
        await this.#host?.down();
      }
    } finally {
      await this.#thread?.stop();
      if (this.#udp !== undefined) closeSockets(this.#udp);
      this.#options.tun.close();
    }
  }

  get #running(): DataThread {
    assert(this.#thread !== undefined, "a path that was opened");
    return this.#thread;
  }

  #onNotice(notice: DataThreadNotice): void {
    if (this.#isClosing) return;
    const { events } = this.#options;
    switch (notice.kind) {
      case "denied":
        return events.denied(notice.record);
      case "denied-by-peer":
        return events.deniedByPeer(notice.session, notice.denial);
      case "flow-ended":
        return this.turns.turn(() => events.flowEnded(notice.flow));
      case "tunnel-wanted":
        return events.tunnelWanted(notice.session, notice.lastTimestamp);
      case "tunnel-up":
        return events.tunnelUp(notice.session, notice.lastTimestamp);
      case "tunnel-failed":
        return events.tunnelFailed(notice.session);
      case "lease-shown":
        return this.judge.learnLease(notice.session, notice.lease);
      case "probe-answer":
        return events.probeAnswer(notice.bytes);
      case "packets":
        return this.turns.turn((nowMs) => {
          eachPacket(notice.bytes, (offset, length) => this.#stack?.handlePacket(nowMs, notice.bytes, offset, length));
        });
    }
  }

  /** Peers with a tunnel still send under sessions that nobody has any more: they are reached where they were last. */
  #recover(last: DataThreadStatus | undefined): DataThreadRecovery {
    const live = new Map<string, Endpoint | undefined>();
    for (const { session, endpoint, lastHandshakeMs } of last?.peers ?? []) {
      if (lastHandshakeMs !== undefined) live.set(session, endpoint);
    }
    const peers = this.#state?.peers.map((peer) => {
      const at = live.get(peer.session);
      return at === undefined
        ? peer
        : { ...peer, endpoints: [at, ...peer.endpoints.filter((other) => !equalEndpoint(other, at))] };
    });
    const state = this.#state && { ...this.#state, peers: peers ?? [] };
    return { state, reach: [...live.keys()] };
  }

  #putPacket(buffer: Uint8Array, offset: number, length: number): void {
    if (this.#toThread.add(buffer, offset, length)) return;
    this.#flushPackets();
    this.#toThread.add(buffer, offset, length);
  }

  #flushPackets(): void {
    const batch = this.#toThread.take();
    if (batch !== undefined && this.#thread?.givePackets(batch) !== true) this.#packetsLost += batch.count;
  }
}
