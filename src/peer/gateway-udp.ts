// The gateway's UDP flows: one real socket for each caller's 4-tuple, bounded, ended by idleness. There is no
// handshake to hold back: a target that is an address is judged before the first datagram is taken, a name's
// datagrams wait while it is resolved.
import { clearInterval, setInterval } from "node:timers";
import { parseAddress } from "../base/address.ts";
import {
  FLOW_IDLE_UDP_MS,
  GATEWAY_UDP_FLOWS_MAX,
  GATEWAY_UDP_FLOWS_PER_SESSION_MAX,
  GATEWAY_UDP_QUEUE_DATAGRAMS_MAX,
} from "../base/limits.ts";
import { Ring } from "../base/ring.ts";
import type { Verdict } from "../filter/contract.ts";
import type { UdpOpening, UdpSocket } from "../netstack/contract.ts";
import type { DialBar, GatewayDial, Judged } from "./gateway-dial.ts";
import { type FlowOpening, flowLine, type GatewayFlows, type LiveFlow } from "./gateway-flows.ts";
import type { GatewayFlow } from "./gateway-view.ts";
import type { RealNetwork, RealUdp } from "./real-network.ts";
import type { Turns } from "./turns.ts";

const SWEEP_MS = FLOW_IDLE_UDP_MS / 8;

export interface GatewayUdpOptions {
  readonly dial: GatewayDial;
  readonly flows: GatewayFlows;
  readonly network: Pick<RealNetwork, "openUdp">;
  readonly turns: Turns;
  readonly count: (name: string) => void;
  readonly judge: (opening: FlowOpening) => Verdict;
  readonly onBar: (opening: FlowOpening, bar: DialBar) => void;
  readonly onFlow: (flow: GatewayFlow) => void;
}

interface UdpFlow {
  readonly flow: LiveFlow;
  readonly overlay: UdpSocket;
  readonly queue: Ring<Uint8Array>;
  real: RealUdp | undefined;
  lastMs: number;
  bytesIn: number;
  bytesOut: number;
}

export class GatewayUdp {
  readonly #options: GatewayUdpOptions;
  readonly #live = new Set<UdpFlow>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: GatewayUdpOptions) {
    this.#options = options;
  }

  /** Inside a turn. */
  open(opening: UdpOpening, description: FlowOpening, to: { readonly host: string; readonly port: number }): void {
    const { flows, turns, count, dial } = this.#options;
    const { session } = description.caller;
    const nowMs = turns.nowMs();
    const perSession = flows.countOf(session).udp >= GATEWAY_UDP_FLOWS_PER_SESSION_MAX;
    if (perSession || flows.udp >= GATEWAY_UDP_FLOWS_MAX) {
      count(perSession ? "udp-flows-per-session" : "udp-flows");
      opening.unreachable(nowMs, "host");
      return;
    }
    const literal = parseAddress(to.host);
    const judged =
      literal === undefined ? undefined : dial.judge(description.caller, description.target, [literal], "udp", to.port);
    if (judged?.kind === "denied") {
      count("udp-dial-denied");
      this.#options.onBar(description, judged.bar);
      opening.unreachable(nowMs, "prohibited");
      return;
    }
    const verdict = this.#options.judge(description);
    const udp: UdpFlow = {
      flow: flows.open(description, () => this.#end(udp, "cut")),
      overlay: opening.accept(),
      queue: new Ring(GATEWAY_UDP_QUEUE_DATAGRAMS_MAX),
      real: undefined,
      lastMs: nowMs,
      bytesIn: 0,
      bytesOut: 0,
    };
    udp.flow.ruleId = verdict.ruleId;
    udp.overlay.onDatagram = (_remote, bytes) => this.#fromOverlay(udp, bytes);
    udp.overlay.onError = () => count("udp-caller-unreachable");
    this.#live.add(udp);
    this.#timer ??= setInterval(() => this.#sweep(), SWEEP_MS).unref();
    this.#fromOverlay(udp, opening.bytes);
    void this.#connect(udp, judged, to);
  }

  close(): void {
    for (const udp of [...this.#live]) this.#end(udp, "cut");
  }

  async #connect(udp: UdpFlow, known: Judged | undefined, to: { host: string; port: number }): Promise<void> {
    const { dial, network, flows } = this.#options;
    const { opening } = udp.flow;
    const judged =
      known ??
      dial.judge(
        opening.caller,
        opening.target,
        await dial.resolve(to.host, new AbortController().signal),
        "udp",
        to.port,
      );
    if (judged.kind === "denied") this.#options.onBar(opening, judged.bar);
    const endpoint = judged.kind === "allowed" ? judged.endpoints[0] : undefined;
    if (endpoint === undefined) return this.#end(udp, judged.kind === "denied" ? "denied" : "unresolved");
    try {
      const real = await network.openUdp(endpoint, {
        onDatagram: (bytes) => this.#toOverlay(udp, bytes),
        onError: (code) => this.#options.count(`udp-${code}`),
      });
      if (udp.flow.state === "ended") return real.close();
      udp.real = real;
    } catch {
      this.#options.count("udp-open-failed"); // out of descriptors, or no route of that family
      return this.#end(udp, "unreachable");
    }
    udp.flow.dialled = endpoint;
    flows.setLocal(udp.flow, udp.real.local);
    flows.live(udp.flow);
    for (let bytes = udp.queue.shift(); bytes !== undefined; bytes = udp.queue.shift()) udp.real.send(bytes);
  }

  #fromOverlay(udp: UdpFlow, bytes: Uint8Array): void {
    udp.lastMs = this.#options.turns.nowMs();
    const copy = bytes.slice(); // valid during the call only, and the kernel may keep it longer
    if (udp.real === undefined) {
      if (!udp.queue.push(copy)) this.#options.count("udp-queue-full");
      else udp.bytesIn += copy.length;
      return;
    }
    udp.bytesIn += copy.length;
    udp.real.send(copy);
  }

  #toOverlay(udp: UdpFlow, bytes: Uint8Array): void {
    if (udp.flow.state === "ended") return;
    const sent = this.#options.turns.turn((nowMs) => {
      udp.lastMs = nowMs;
      return udp.overlay.send(nowMs, udp.flow.opening.source, bytes);
    });
    if (sent) udp.bytesOut += bytes.length;
    else this.#options.count("udp-too-large");
  }

  #sweep(): void {
    const nowMs = this.#options.turns.nowMs();
    for (const udp of [...this.#live]) if (nowMs - udp.lastMs >= FLOW_IDLE_UDP_MS) this.#end(udp, "idle");
  }

  #end(udp: UdpFlow, end: string): void {
    if (!this.#options.flows.end(udp.flow)) return;
    this.#live.delete(udp);
    udp.overlay.close();
    udp.real?.close();
    udp.queue.clear();
    if (this.#live.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
    const { bytesIn, bytesOut } = udp;
    this.#options.onFlow(flowLine(udp.flow, { endedMs: this.#options.turns.nowMs(), bytesIn, bytesOut, end }));
  }
}
