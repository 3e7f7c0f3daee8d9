// From what a client names to a connection of the stack: service, then node, then the `host:` route with the longest
// pattern; IP literals go as they are. A name that this peer knows nothing of is denied as one without a grant is: at
// once, in the same words.
import { type Address, type Endpoint, formatAddress, parseAddress } from "../base/address.ts";
import { DIAL_ADDRESSES_MAX, OVERLAY_DIAL_TIMEOUT_MS, SILENT_GATEWAY_MS, SILENT_GATEWAYS_MAX } from "../base/limits.ts";
import { SECOND_MS } from "../base/units.ts";
import type { NetmapView, ServiceEntry } from "../control/netmap.ts";
import type { FilterProtocol } from "../filter/contract.ts";
import type { Netstack, UdpSocket } from "../netstack/contract.ts";
import { NAME_DIAL_PORT } from "../policy/world.ts";
import { attemptDial, type DialRoute } from "./dial-attempt.ts";
import { longestMatch, parseHostName } from "./host-name.ts";
import {
  DialError,
  type DialFailure,
  type DialTarget,
  type NameResolver,
  type OutboundJudgement,
  type OverlayDialer,
  type OverlayView,
} from "./overlay.ts";
import { type HeldTcp, OverlaySocket } from "./overlay-socket.ts";
import type { Turns } from "./turns.ts";

const ATTEMPT_MIN_MS = 3 * SECOND_MS; // of several addresses, none gets less while time is left
const HOST_PATTERN = "host:";

export interface StackDialerOptions {
  readonly view: OverlayView;
  readonly stack: Pick<Netstack, "connectTcp" | "bindUdp">;
  readonly turns: Turns;
  /** `wg` mode: asked for every name. Without it and without a netmap, names are denied. */
  readonly resolver?: NameResolver;
  readonly timeoutMs?: number;
}

/** A service's ports hold the port and its protocol fits; an empty list holds every port. */
function serves(service: ServiceEntry, protocol: FilterProtocol, port: number): boolean {
  if (service.protocol !== "any" && service.protocol !== protocol) return false;
  return service.ports.length === 0 || service.ports.some(([low, high]) => port >= low && port <= high);
}

export class StackDialer implements OverlayDialer {
  readonly #view: OverlayView;
  readonly #stack: Pick<Netstack, "connectTcp" | "bindUdp">;
  readonly #turns: Turns;
  readonly #resolver: NameResolver | undefined;
  readonly #timeoutMs: number;
  readonly #silentUntilMs = new Map<string, number>(); // by address

  constructor(options: StackDialerOptions) {
    this.#view = options.view;
    this.#stack = options.stack;
    this.#turns = options.turns;
    this.#resolver = options.resolver;
    this.#timeoutMs = options.timeoutMs ?? OVERLAY_DIAL_TIMEOUT_MS;
  }

  async dial(asked: DialTarget, signal?: AbortSignal): Promise<OverlaySocket> {
    const tcp = await this.dialTcp(asked, signal);
    return new OverlaySocket({ turns: this.#turns, tcp, allowHalfOpen: true });
  }

  async dialTcp(asked: DialTarget, signal?: AbortSignal): Promise<HeldTcp> {
    const target = this.#withPort(asked);
    const untilMs = this.#turns.nowMs() + this.#timeoutMs;
    const routes = this.#answeringFirst(await this.#routes(target, "tcp", signal));
    let failure: DialError | undefined;
    for (const [index, route] of routes.entries()) {
      const leftMs = untilMs - this.#turns.nowMs();
      if (leftMs <= 0) break;
      const timeoutMs = Math.min(leftMs, Math.max(ATTEMPT_MIN_MS, leftMs / (routes.length - index)));
      try {
        return await attemptDial(
          { view: this.#view, stack: this.#stack, turns: this.#turns, target, timeoutMs, signal },
          route,
        );
      } catch (error) {
        if (!(error instanceof DialError)) throw error;
        failure = error;
        if (!triesNext(error.kind)) break;
        this.#noteSilent(route);
      }
    }
    throw failure ?? new DialError("timeout", target);
  }

  /** A gateway that did not answer a moment ago is tried last: only the first connection after its end waits for it. */
  #answeringFirst(routes: readonly DialRoute[]): readonly DialRoute[] {
    if (routes.length < 2 || this.#silentUntilMs.size === 0) return routes;
    const nowMs = this.#turns.nowMs();
    const isSilent = (route: DialRoute): boolean =>
      (this.#silentUntilMs.get(formatAddress(route.address)) ?? Number.NEGATIVE_INFINITY) > nowMs;
    return [...routes.filter((route) => !isSilent(route)), ...routes.filter(isSilent)];
  }

  #noteSilent(route: DialRoute): void {
    const nowMs = this.#turns.nowMs();
    for (const [address, untilMs] of this.#silentUntilMs) if (untilMs <= nowMs) this.#silentUntilMs.delete(address);
    if (this.#silentUntilMs.size >= SILENT_GATEWAYS_MAX) return;
    this.#silentUntilMs.set(formatAddress(route.address), nowMs + SILENT_GATEWAY_MS);
  }

  /** Where a datagram for it goes. @throws DialError when the target is denied or unknown */
  findUdp(asked: DialTarget): Endpoint {
    const target = this.#withPort(asked);
    const address = this.#knownAddresses(target, "udp")[0];
    if (address === undefined) throw this.#deniedName(target, "udp");
    this.#judge(target, this.#view.judgeOutbound(address, "udp", target.port));
    return { address, port: target.port };
  }

  bindUdp(target: DialTarget): { readonly socket: UdpSocket; readonly remote: Endpoint } {
    const remote = this.findUdp(target);
    const { address } = remote;
    const local = this.#view.localAddressFor(address);
    const socket = local === undefined ? undefined : this.#stack.bindUdp({ address: local, port: 0 });
    if (socket === undefined) throw new DialError("unreachable", target);
    return { socket, remote };
  }

  async #routes(target: DialTarget, protocol: FilterProtocol, signal?: AbortSignal): Promise<readonly DialRoute[]> {
    let addresses = this.#knownAddresses(target, protocol);
    if (addresses.length === 0) {
      const name = parseHostName(target.host);
      const netmap = this.#view.netmap();
      const hosts = name === undefined || netmap === undefined ? [] : this.#hostRoutes(netmap, name, target);
      if (hosts.length > 0) return hosts;
      if (name === undefined || this.#resolver === undefined) throw this.#deniedName(target, protocol);
      addresses = await this.#resolver.resolve(name, signal ?? AbortSignal.timeout(this.#timeoutMs));
      if (addresses.length === 0) throw new DialError("unresolved", target);
    }
    const routes: DialRoute[] = [];
    let denied: OutboundJudgement | undefined;
    for (const address of addresses.slice(0, DIAL_ADDRESSES_MAX)) {
      const judgement = this.#view.judgeOutbound(address, protocol, target.port);
      if (judgement.allowed) routes.push({ address, port: target.port, name: undefined });
      else denied ??= judgement;
    }
    if (routes.length === 0 && denied !== undefined) this.#judge(target, denied);
    return routes;
  }

  /**
   * Of an IP literal, a service or a node. Empty: the name is none of these. @throws DialError denied, with a
   * service's own hint
   */
  #knownAddresses(target: DialTarget, protocol: FilterProtocol): readonly Address[] {
    const literal = parseAddress(target.host);
    if (literal !== undefined) return [literal];
    const netmap = this.#view.netmap();
    const { kind, name } = splitKind(target.host);
    if (netmap === undefined) return [];
    const service = netmap.services.find((entry) => kind !== "node" && entry.name === name);
    if (service !== undefined) {
      if (service.denied !== undefined) throw this.#deniedService(target, protocol, service);
      if (serves(service, protocol, target.port)) return parseAll(service.gateways.map((gateway) => gateway.address));
    }
    const nodes = netmap.peers.filter((peer) => kind !== "service" && peer.identity === `node:${name}`);
    return parseAll(nodes.flatMap((peer) => peer.addresses));
  }

  /** Port 0: the service's only one. */
  #withPort(target: DialTarget): DialTarget {
    if (target.port !== 0) return target;
    const { name } = splitKind(target.host);
    const ports = this.#view.netmap()?.services.find((entry) => entry.name === name)?.ports;
    const only = ports?.length === 1 ? ports[0] : undefined;
    return only === undefined || only[0] !== only[1] ? target : { host: target.host, port: only[0] };
  }

  #hostRoutes(netmap: NetmapView, name: string, target: DialTarget): readonly DialRoute[] {
    const route = longestMatch(name, netmap.hostRoutes, (entry) => entry.pattern.replace(HOST_PATTERN, ""));
    if (route === undefined) return [];
    const routes: DialRoute[] = [];
    let denied: OutboundJudgement | undefined;
    for (const session of route.gateways) {
      const gateway = netmap.peers.find((peer) => peer.session === session);
      const address = gateway === undefined ? undefined : parseAll(gateway.addresses)[0];
      if (address === undefined) continue;
      const judgement = this.#view.judgeOutboundHost(session, name, "tcp", target.port);
      if (judgement.allowed) routes.push({ address, port: NAME_DIAL_PORT, name });
      else denied ??= judgement;
    }
    if (routes.length === 0 && denied !== undefined) this.#judge(target, denied);
    return routes;
  }

  #judge(target: DialTarget, judgement: OutboundJudgement): void {
    if (judgement.allowed) return;
    const { denialId, reason, ruleId } = judgement;
    throw new DialError("denied", target, { denialId, reason, ruleId });
  }

  #deniedName(target: DialTarget, protocol: FilterProtocol): DialError {
    const denialId = this.#view.denyName(target.host, protocol, target.port);
    return new DialError("denied", target, { denialId, reason: "NO_GRANT" });
  }

  /** Discoverable: this peer may know of it, so the answer says what would allow it. */
  #deniedService(target: DialTarget, protocol: FilterProtocol, service: ServiceEntry): DialError {
    const denialId = this.#view.denyName(target.host, protocol, target.port);
    return new DialError("denied", target, { denialId, ...service.denied });
  }
}

/** Another gateway of the same service may still reach it; a refusal or a denial is the answer. */
function triesNext(kind: DialFailure): boolean {
  return kind === "unreachable" || kind === "timeout" || kind === "unresolved";
}

/** `service:NAME` and `node:NAME` say which of the two is meant; a bare name is a service, then a node. */
export function splitKind(host: string): { readonly kind: "service" | "node" | undefined; readonly name: string } {
  const text = host.toLowerCase();
  if (text.startsWith("service:")) return { kind: "service", name: text.slice("service:".length) };
  if (text.startsWith("node:")) return { kind: "node", name: text.slice("node:".length) };
  return { kind: undefined, name: text };
}

function parseAll(texts: readonly string[]): readonly Address[] {
  return texts.map(parseAddress).filter((address) => address !== undefined);
}
