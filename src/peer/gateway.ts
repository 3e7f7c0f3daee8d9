// The gateway: ends TCP and UDP flows of the overlay and dials real sockets. On the path after the filter has said
// yes to the packet: 1 whose flow → 2 which target, offered by this host and accepted by the policy → 3 limits of
// that caller → 4 resolve, judge, dial (gateway-dial.ts) → 5 judge again: the dial took time → 6 answer the SYN, join
// the sockets. What fails is answered in kind.
import { type Address, type Endpoint, equalAddress, formatEndpoint, type Prefix } from "../base/address.ts";
import { GATEWAY_DIALS_PER_SESSION_MAX, GATEWAY_TCP_FLOWS_PER_SESSION_MAX } from "../base/limits.ts";
import type { Verdict } from "../filter/contract.ts";
import type { TcpHandler, TcpOpening, UdpOpening } from "../netstack/contract.ts";
import { NAME_DIAL_PORT } from "../policy/world.ts";
import { type DialBar, type DialResult, GatewayDial } from "./gateway-dial.ts";
import { type FlowOpening, flowLine, GatewayFlows, type LiveFlow } from "./gateway-flows.ts";
import {
  findHostTarget,
  findTarget,
  type GatewayOffers,
  type GatewayTarget,
  transitPrefixes,
} from "./gateway-offers.ts";
import { NameDialExchange } from "./gateway-request.ts";
import { GatewayUdp } from "./gateway-udp.ts";
import type { Caller, DialledFlow, GatewayFlow, GatewayView } from "./gateway-view.ts";
import type { NameDialRequest } from "./name-dial.ts";
import { type PipeResult, resetSocket, SocketPipe } from "./pipe-sockets.ts";
import type { RealNetwork } from "./real-network.ts";
import type { Turns } from "./turns.ts";

export interface GatewayOptions {
  readonly view: GatewayView;
  readonly turns: Turns;
  readonly offers: GatewayOffers;
  readonly network: RealNetwork;
  readonly onFlow: (flow: GatewayFlow) => void;
  readonly dialTimeoutMs?: number;
}

/**
 * Wire `tcpOpening` and `udpOpening` into the stack's handler; call `netmapChanged` after each netmap and at each
 * lease's end.
 */
export class Gateway {
  readonly counters: Record<string, number> = {};
  readonly #options: GatewayOptions;
  readonly #view: GatewayView;
  readonly #turns: Turns;
  readonly #dial: GatewayDial;
  readonly #flows = new GatewayFlows();
  readonly #udp: GatewayUdp;

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#view = options.view;
    this.#turns = options.turns;
    this.#dial = new GatewayDial({
      view: options.view,
      network: options.network,
      nowMs: () => options.turns.nowMs(),
      ...(options.dialTimeoutMs === undefined ? {} : { timeoutMs: options.dialTimeoutMs }),
    });
    this.#udp = new GatewayUdp({
      dial: this.#dial,
      flows: this.#flows,
      network: options.network,
      turns: options.turns,
      count: (name) => this.#count(name),
      judge: (flow) => this.#judgeFlow(flow),
      onBar: (opening, bar) => this.#recordBar(opening, bar),
      onFlow: options.onFlow,
    });
  }

  /** For the stack's `setTransit`, after each netmap. */
  transitPrefixes(): readonly Prefix[] {
    const netmap = this.#view.netmap();
    return netmap === undefined ? [] : transitPrefixes(this.#options.offers, netmap);
  }

  tcpOpening(opening: TcpOpening): void {
    const nowMs = this.#turns.nowMs();
    const caller = this.#view.callerOf(opening.remote.address);
    if (caller === undefined) {
      this.#count("tcp-no-caller");
      opening.unreachable(nowMs, "prohibited");
      return;
    }
    const own = this.#isOwn(opening.local.address);
    if (own && opening.local.port === NAME_DIAL_PORT && this.#options.offers.hostPatterns.length > 0) {
      this.#openName(opening, caller);
      return;
    }
    const target = this.#targetOf(opening.local, "tcp");
    if (target === undefined) {
      this.#count("tcp-not-offered");
      own ? opening.refuse(nowMs) : opening.unreachable(nowMs, "host");
      return;
    }
    if (!this.#hasRoom(caller)) {
      opening.unreachable(nowMs, "host");
      return;
    }
    this.#openTcp(opening, this.#describe(opening, caller, "tcp", target));
  }

  udpOpening(opening: UdpOpening): void {
    const nowMs = this.#turns.nowMs();
    const caller = this.#view.callerOf(opening.remote.address);
    if (caller === undefined) {
      this.#count("udp-no-caller");
      opening.unreachable(nowMs, "prohibited");
      return;
    }
    const target = this.#targetOf(opening.local, "udp");
    if (target === undefined || "path" in target.to) {
      this.#count("udp-not-offered");
      opening.unreachable(nowMs, this.#isOwn(opening.local.address) ? "port" : "host");
      return;
    }
    this.#udp.open(opening, this.#describe(opening, caller, "udp", target), target.to);
  }

  /** The caller behind a socket that this gateway dialled, by the socket's source; as long as the flow lives. */
  whoisDialled(address: Address, port: number): DialledFlow | undefined {
    return this.#flows.whoisDialled({ address, port });
  }

  /** Every flow of the session ends now, by reset. Returns how many. */
  cutSession(session: string): number {
    const flows = this.#flows.ofSession(session);
    for (const flow of flows) flow.cut();
    return flows.length;
  }

  /** Judges every live flow anew and cuts what is no longer allowed or served. Returns how many were cut. */
  netmapChanged(): number {
    let cut = 0;
    for (const flow of this.#flows.all()) {
      if (this.#judgeFlow(flow.opening).allowed && !this.#isNever(flow)) continue;
      flow.cut();
      cut++;
    }
    return cut;
  }

  close(): void {
    for (const flow of this.#flows.all()) flow.cut();
    this.#udp.close();
  }

  #count(name: string): void {
    this.counters[name] = (this.counters[name] ?? 0) + 1;
  }

  #isOwn(address: Address): boolean {
    return this.#view.ownAddresses().some((own) => equalAddress(own, address));
  }

  #targetOf(local: Endpoint, protocol: "tcp" | "udp"): GatewayTarget | undefined {
    const { offers } = this.#options;
    const found = findTarget(offers, this.#view.netmap(), local.address, protocol, local.port);
    if (found !== undefined || protocol === "udp" || !this.#isOwn(local.address)) return found;
    const exposed = offers.exposes.get(local.port);
    return exposed === undefined ? undefined : { label: `expose:${local.port}`, to: exposed, exemption: "host" };
  }

  #describe(
    opening: TcpOpening | UdpOpening,
    caller: Caller,
    protocol: "tcp" | "udp",
    target: GatewayTarget,
    name?: string,
  ): FlowOpening {
    const { remote, local } = opening;
    return { caller, protocol, source: remote, destination: local, target, name, startedMs: this.#turns.nowMs() };
  }

  /** Bounded for each caller: dials in progress, and flows, which hold a file descriptor each. */
  #hasRoom(caller: Caller): boolean {
    const own = this.#flows.countOf(caller.session);
    if (own.dialling >= GATEWAY_DIALS_PER_SESSION_MAX) this.#count("tcp-dials-per-session");
    else if (own.tcp >= GATEWAY_TCP_FLOWS_PER_SESSION_MAX) this.#count("tcp-flows-per-session");
    else return true;
    return false;
  }

  /** As it stands now: is it still this caller's address, still our target, still allowed? */
  #judgeFlow(opening: FlowOpening, name = opening.name): Verdict {
    const { caller, destination, protocol, target, source } = opening;
    if (this.#view.callerOf(source.address)?.session !== caller.session) return NOBODY;
    if (name !== undefined && "port" in target.to) {
      const { offers } = this.#options;
      if (findHostTarget(offers, this.#view.netmap(), name, target.to.port) === undefined) return NOT_SERVED;
      return this.#view.judgeInboundHost(caller.session, name, protocol, target.to.port);
    }
    const now = this.#targetOf(destination, protocol);
    if (now === undefined || !sameTarget(now, target)) return NOT_SERVED;
    return this.#view.judgeInbound(caller.session, destination.address, protocol, destination.port);
  }

  /** `never` may have closed what lies behind, while the name or service stays open. */
  #isNever(flow: LiveFlow): boolean {
    const { dialled, opening } = flow;
    if (dialled === undefined) return false;
    const { session } = opening.caller;
    return this.#view.judgeInbound(session, dialled.address, opening.protocol, dialled.port).reason === "NEVER";
  }

  #judgeDialled(opening: FlowOpening, dialled: Endpoint | undefined): DialBar | undefined {
    if (dialled === undefined) return undefined;
    const judged = this.#dial.judge(opening.caller, opening.target, [dialled.address], opening.protocol, dialled.port);
    return judged.kind === "denied" ? judged.bar : undefined;
  }

  #openTcp(opening: TcpOpening, description: FlowOpening): void {
    const controller = new AbortController();
    const flow = this.#flows.open(description, () => controller.abort());
    let gone = false;
    opening.onGone = () => {
      gone = true;
      controller.abort();
    };
    void this.#dialFlow(flow, controller.signal).then((result) => {
      opening.onGone = undefined;
      this.#turns.turn((nowMs) => {
        if (result.kind !== "connected") this.#failTcp(gone ? undefined : opening, flow, result);
        else this.#join(flow, result, opening.accept(nowMs, IGNORE)); // the pipe sets its own handler
      });
    });
  }

  #failTcp(opening: TcpOpening | undefined, flow: LiveFlow, result: Exclude<DialResult, { kind: "connected" }>): void {
    const nowMs = this.#turns.nowMs();
    this.#flows.end(flow);
    this.#count(`tcp-dial-${result.kind}`);
    if (result.kind === "denied") this.#recordBar(flow.opening, result.bar);
    if (result.kind === "refused") opening?.refuse(nowMs);
    else opening?.unreachable(nowMs, result.kind === "aborted" || result.kind === "denied" ? "prohibited" : "host");
  }

  #openName(opening: TcpOpening, caller: Caller): void {
    if (!this.#hasRoom(caller)) {
      opening.unreachable(this.#turns.nowMs(), "host");
      return;
    }
    const controller = new AbortController();
    // Counted from its first packet on, before its name is known.
    const unknown: GatewayTarget = { label: undefined, to: { path: "" }, exemption: "none" };
    const slot = this.#flows.open(this.#describe(opening, caller, "tcp", unknown), () => {
      controller.abort();
      this.#turns.turn((nowMs) => exchange.connection.abort(nowMs));
    });
    const exchange: NameDialExchange = new NameDialExchange(opening, this.#turns, {
      onGone: () => {
        controller.abort();
        this.#flows.end(slot);
      },
      onRequest: (request) => {
        if (!this.#flows.end(slot)) return;
        if (request !== undefined) return this.#dialName(opening, caller, exchange, controller, request);
        this.#count("name-bad-request");
        exchange.answer("bad-request");
      },
    });
  }

  #dialName(
    opening: TcpOpening,
    caller: Caller,
    exchange: NameDialExchange,
    controller: AbortController,
    request: NameDialRequest,
  ): void {
    const { name, port } = request;
    const target = findHostTarget(this.#options.offers, this.#view.netmap(), name, port);
    const shown: GatewayTarget = target ?? { label: `host:${name}`, to: { host: name, port }, exemption: "none" };
    const description = this.#describe(opening, caller, "tcp", shown, name);
    const verdict = target === undefined ? NOT_SERVED : this.#judgeFlow(description);
    if (!verdict.allowed) {
      this.#count("name-denied");
      const bar: DialBar = { reason: verdict.reason, ruleId: verdict.ruleId, address: undefined };
      exchange.answer("denied", this.#recordBar(description, bar));
      return;
    }
    const flow = this.#flows.open(description, () => controller.abort());
    void this.#dialFlow(flow, controller.signal).then((result) => {
      if (result.kind === "connected") {
        exchange.answer("connected");
        return this.#join(flow, result, exchange.connection);
      }
      this.#flows.end(flow);
      this.#count(`name-dial-${result.kind}`);
      if (result.kind === "denied") return exchange.answer("denied", this.#recordBar(description, result.bar));
      if (result.kind === "aborted") return this.#turns.turn((nowMs) => exchange.connection.abort(nowMs));
      exchange.answer(result.kind);
    });
  }

  /** Dials, then judges again; never rejects. */
  async #dialFlow(flow: LiveFlow, signal: AbortSignal): Promise<DialResult> {
    const { caller, target } = flow.opening;
    const result = await this.#dial.dial(caller, target, (local) => this.#flows.setLocal(flow, local), signal);
    if (result.kind !== "connected") return result;
    const verdict = this.#judgeFlow(flow.opening);
    const bar = verdict.allowed ? this.#judgeDialled(flow.opening, result.dialled) : { ...verdict, address: undefined };
    if (signal.aborted || bar !== undefined) {
      resetSocket(result.local.socket);
      return bar === undefined ? { kind: "aborted" } : { kind: "denied", bar };
    }
    flow.ruleId = verdict.ruleId;
    return result;
  }

  #join(
    flow: LiveFlow,
    result: Extract<DialResult, { kind: "connected" }>,
    connection: Parameters<typeof makePipe>[1],
  ): void {
    const netmap = this.#view.netmap();
    flow.dialled = result.dialled;
    flow.policyVersion = netmap?.policyVersion ?? 0;
    flow.revision = netmap?.revision ?? 0;
    this.#flows.live(flow);
    this.#count("tcp-flows");
    const pipe = makePipe(result.local, connection, this.#turns, (end) => this.#ended(flow, end));
    flow.cut = () => pipe.cut();
  }

  #ended(flow: LiveFlow, result: PipeResult): void {
    if (!this.#flows.end(flow)) return;
    const { bytesFromOverlay: bytesIn, bytesToOverlay: bytesOut, end } = result;
    this.#options.onFlow(flowLine(flow, { endedMs: this.#turns.nowMs(), bytesIn, bytesOut, end }));
  }

  #recordBar(opening: FlowOpening, bar: DialBar): string {
    const { caller, source, destination, protocol, target } = opening;
    return this.#view.recordDenial({
      caller,
      source,
      destination: target.label ?? formatEndpoint(destination),
      address: bar.address,
      protocol,
      port: "port" in target.to ? target.to.port : destination.port,
      reason: bar.reason,
      ruleId: bar.ruleId,
    });
  }
}

const NOBODY: Verdict = { allowed: false, reason: "NOT_OUR_ADDRESS", ruleId: undefined };
const NOT_SERVED: Verdict = { allowed: false, reason: "NO_GRANT", ruleId: undefined };

function makePipe(...args: ConstructorParameters<typeof SocketPipe>): SocketPipe {
  return new SocketPipe(...args);
}

function sameTarget(a: GatewayTarget, b: GatewayTarget): boolean {
  if (a.label !== b.label || a.exemption !== b.exemption) return false;
  if ("path" in a.to || "path" in b.to) return "path" in a.to && "path" in b.to && a.to.path === b.to.path;
  return a.to.host === b.to.host && a.to.port === b.to.port;
}

const IGNORE: TcpHandler = { readable: () => undefined, writable: () => undefined, closed: () => undefined };
