// A small named world for the shells' tests: agent coder behind SOCKS5, node gw in front of loopback services, one
// in-memory stack.
import { createServer, type Server, type Socket } from "node:net";
import {
  type Address,
  equalAddress,
  type Prefix,
  parseAddress,
  parsePrefix,
  prefixContains,
} from "../../src/base/address.ts";
import type { NetmapView } from "../../src/control/netmap.ts";
import type { Verdict } from "../../src/filter/contract.ts";
import { Gateway } from "../../src/peer/gateway.ts";
import { type GatewayOffers, NO_OFFERS } from "../../src/peer/gateway-offers.ts";
import type { Caller, GatewayDenial, GatewayFlow, GatewayView } from "../../src/peer/gateway-view.ts";
import type { DenialNotice, OutboundJudgement, OverlayView } from "../../src/peer/overlay.ts";
import { StackDialer } from "../../src/peer/overlay-dialer.ts";
import { hostNetwork, type RealNetwork } from "../../src/peer/real-network.ts";
import { FakeStack, TestTurns } from "./fake-stack.ts";

export const CODER = "s_c0der00000000000";
export const GW = "s_gw00000000000000";
export const CODER_ADDRESS = "fd00:17::c";
export const GW_ADDRESS = "fd00:17::6";
export const STAGING_ADDRESS = "fd00:17::100";
const KEY = `${"A".repeat(43)}=`;

export function address(text: string): Address {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`not an address: ${text}`);
  return parsed;
}

export function netmapOf(change: Partial<NetmapView> = {}): NetmapView {
  const self = { session: GW, identity: "node:gw", tags: [], publicKey: KEY, signKey: KEY, kind: "wirebadge" as const };
  return {
    epoch: 1,
    revision: 7,
    network: { id: "n_1", name: "test", ula: "fd00:17::/48", pool4: "10.99.0.0/16", mtuBytes: 1420, probes: [] },
    policyVersion: 3,
    self: { ...self, addresses: [GW_ADDRESS], leaseMs: 60_000 },
    peers: [{ ...self, addresses: [GW_ADDRESS, "10.99.0.6"], prefixes: [], endpoints: [] }],
    inbound: [],
    outbound: [],
    inboundHosts: [],
    outboundHosts: [],
    services: [
      {
        name: "staging",
        protocol: "tcp",
        ports: [[80, 80]],
        gateways: [{ session: GW, address: STAGING_ADDRESS }],
        discoverable: false,
      },
      {
        name: "production",
        protocol: "tcp",
        ports: [[80, 80]],
        gateways: [],
        discoverable: true,
        denied: { reason: "NO_GRANT", hint: "ask the platform group" },
      },
    ],
    serves: [{ name: "staging", address: STAGING_ADDRESS, host: "10.20.0.5", protocol: "tcp", ports: [[80, 80]] }],
    routes: [{ destination: "0.0.0.0/0" }, { destination: "::/0" }, { destination: "host:*" }],
    hostRoutes: [{ pattern: "*.internal", gateways: [GW] }],
    refusedOffers: [],
    revoked: [],
    ...change,
  };
}

const YES: Verdict = { allowed: true, reason: "ALLOWED_BY_RULE", ruleId: "g1" };
const NO: Verdict = { allowed: false, reason: "NO_GRANT", ruleId: undefined };

/** What the policy says, as the engine would answer it. */
export class World implements GatewayView, OverlayView {
  readonly turns = new TestTurns();
  readonly stack = new FakeStack(this.turns);
  map: NetmapView | undefined = netmapOf();
  callers = new Map<string, Caller>([
    [CODER_ADDRESS, { session: CODER, identity: "agent:coder", sponsor: "user:ana@example.com" }],
  ]);
  allowed = (_address: Address, _port: number): boolean => true;
  allowedHost = (_name: string, _port: number): boolean => true;
  never: readonly string[] = [];
  readonly flows: GatewayFlow[] = [];
  readonly denials: GatewayDenial[] = [];
  readonly deniedNames: string[] = [];
  readonly listeners = new Set<(denial: DenialNotice) => void>();
  #denialCount = 0;

  netmap(): NetmapView | undefined {
    return this.map;
  }

  ownAddresses(): readonly Address[] {
    return [address(GW_ADDRESS)];
  }

  callerOf(source: Address): Caller | undefined {
    for (const [text, caller] of this.callers) if (equalAddress(address(text), source)) return caller;
    return undefined;
  }

  judgeInbound(_session: string, to: Address, _protocol: string, port: number): Verdict {
    const closed = this.never.some((prefix) => prefixContains(parsePrefix(prefix)!, to));
    if (closed) return { allowed: false, reason: "NEVER", ruleId: "never-1" };
    return this.allowed(to, port) ? YES : NO;
  }

  judgeInboundHost(_session: string, name: string, _protocol: string, port: number): Verdict {
    return this.allowedHost(name, port) ? YES : NO;
  }

  recordDenial(denial: GatewayDenial): string {
    this.denials.push(denial);
    return this.#id();
  }

  judgeOutbound(to: Address, _protocol: string, port: number): OutboundJudgement {
    return this.allowed(to, port) ? { ...YES, denialId: undefined } : { ...NO, denialId: this.#id() };
  }

  judgeOutboundHost(_session: string, name: string, _protocol: string, port: number): OutboundJudgement {
    return this.allowedHost(name, port) ? { ...YES, denialId: undefined } : { ...NO, denialId: this.#id() };
  }

  denyName(name: string): string {
    this.deniedNames.push(name);
    return this.#id();
  }

  onDenial(listener: (denial: DenialNotice) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  localAddressFor(): Address | undefined {
    return address(CODER_ADDRESS);
  }

  /** Every prefix, as `--route 0.0.0.0/0 --route ::/0` offers. */
  transitAll(): readonly Prefix[] {
    return [parsePrefix("0.0.0.0/0")!, parsePrefix("::/0")!];
  }

  dialer(timeoutMs = 5_000): StackDialer {
    return new StackDialer({ view: this, stack: this.stack, turns: this.turns, timeoutMs });
  }

  /** Wired to the stack. */
  gateway(offers: Partial<GatewayOffers>, network: Partial<RealNetwork> = {}, dialTimeoutMs = 5_000): Gateway {
    const gateway = new Gateway({
      view: this,
      turns: this.turns,
      offers: { ...NO_OFFERS, ...offers },
      network: { ...hostNetwork, ...network },
      onFlow: (flow) => this.flows.push(flow),
      dialTimeoutMs,
    });
    this.stack.onTcp = (opening) => gateway.tcpOpening(opening);
    this.stack.onUdp = (opening) => gateway.udpOpening(opening);
    return gateway;
  }

  #id(): string {
    return `d_${String(this.#denialCount++).padStart(10, "0")}`;
  }
}

/** A real TCP server on loopback; `close` ends its connections, too. */
export async function listen(
  onSocket: (socket: Socket) => void,
  host = "127.0.0.1",
): Promise<{ port: number; server: Server; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const bound = server.address();
  if (bound === null || typeof bound !== "object") throw new Error("no port");
  return {
    port: bound.port,
    server,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

/** Polls each event loop turn; fails after `timeoutMs`. */
export async function until(condition: () => boolean, timeoutMs = 5_000): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error("the condition did not come true in time");
    await new Promise((resolve) => setImmediate(resolve));
  }
}
