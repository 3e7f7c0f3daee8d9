// The gateway's real dial: resolve once, judge every address (never, dial rules), then dial *by address*, one after
// the other. What was judged is what is dialled: a name is never given to the system twice.
import { clearTimeout, setTimeout } from "node:timers";
import { type Address, type Endpoint, type Prefix, parseAddress, parsePrefix } from "../base/address.ts";
import { DIAL_ADDRESSES_MAX, GATEWAY_DIAL_TIMEOUT_MS } from "../base/limits.ts";
import { SECOND_MS } from "../base/units.ts";
import type { NetworkEntry } from "../control/netmap.ts";
import type { VerdictReason } from "../filter/contract.ts";
import { refuseDial } from "./dial-rules.ts";
import type { GatewayTarget } from "./gateway-offers.ts";
import type { Caller, GatewayView } from "./gateway-view.ts";
import { parseHostName } from "./host-name.ts";
import type { LocalSocket } from "./pipe-sockets.ts";
import { connectLocal, errnoOf, type RealNetwork, whenConnected } from "./real-network.ts";

const ATTEMPT_MIN_MS = 2 * SECOND_MS;

export type DialOutcome = "refused" | "unreachable" | "unresolved" | "timeout" | "aborted";

/** Why none of the addresses may be dialled. */
export interface DialBar {
  readonly reason: VerdictReason;
  readonly ruleId: string | undefined;
  readonly address: Address | undefined;
}

export type DialResult =
  | { readonly kind: "connected"; readonly local: LocalSocket; readonly dialled: Endpoint | undefined }
  | { readonly kind: "denied"; readonly bar: DialBar }
  | { readonly kind: DialOutcome };

export type Judged =
  | { readonly kind: "allowed"; readonly endpoints: readonly Endpoint[] }
  | { readonly kind: "denied"; readonly bar: DialBar };

const ERRNO_OUTCOMES: Readonly<Record<string, DialOutcome>> = {
  ECONNREFUSED: "refused",
  ECONNRESET: "refused",
  ETIMEDOUT: "timeout",
  ABORT_ERR: "aborted",
};

export interface GatewayDialOptions {
  readonly view: Pick<GatewayView, "netmap" | "judgeInbound">;
  readonly network: RealNetwork;
  readonly nowMs: () => number;
  readonly timeoutMs?: number;
}

export class GatewayDial {
  readonly #view: Pick<GatewayView, "netmap" | "judgeInbound">;
  readonly #network: RealNetwork;
  readonly #nowMs: () => number;
  readonly #timeoutMs: number;

  constructor(options: GatewayDialOptions) {
    this.#view = options.view;
    this.#network = options.network;
    this.#nowMs = options.nowMs;
    this.#timeoutMs = options.timeoutMs ?? GATEWAY_DIAL_TIMEOUT_MS;
  }

  /** Those of the addresses that may be dialled for this caller; the first bar met when there is none. */
  judge(
    caller: Caller,
    target: GatewayTarget,
    addresses: readonly Address[],
    protocol: "tcp" | "udp",
    port: number,
  ): Judged {
    const netmap = this.#view.netmap();
    const own = this.#network.ownInterfaces();
    // Without them nobody can say that an address isn't this machine's own.
    if (own === undefined)
      return {
        kind: "denied",
        bar: { reason: "DIAL_REFUSED", ruleId: "own-addresses-unknown", address: addresses[0] },
      };
    const known = netmap === undefined ? [] : overlayPrefixes(netmap.network);
    const overlay = [...known, ...(this.#network.intoOverlay?.() ?? [])];
    const around = { ownAddresses: own.addresses, broadcasts: own.broadcasts, overlay };
    const endpoints: Endpoint[] = [];
    let bar: DialBar | undefined;
    for (const address of addresses.slice(0, DIAL_ADDRESSES_MAX)) {
      const verdict = this.#view.judgeInbound(caller.session, address, protocol, port);
      const refusal = refuseDial(address, around, target.exemption);
      if (verdict.reason !== "NEVER" && refusal === undefined) endpoints.push({ address, port });
      else if (verdict.reason === "NEVER") bar ??= { reason: "NEVER", ruleId: verdict.ruleId, address };
      else bar ??= { reason: "DIAL_REFUSED", ruleId: refusal, address };
    }
    return endpoints.length === 0 && bar !== undefined ? { kind: "denied", bar } : { kind: "allowed", endpoints };
  }

  /** Of an IP literal at once, else by the system's resolver. Empty: it doesn't resolve. */
  async resolve(host: string, signal: AbortSignal): Promise<readonly Address[]> {
    const literal = parseAddress(host);
    if (literal !== undefined) return [literal];
    const name = parseHostName(host);
    if (name === undefined) return [];
    // getaddrinfo can't be cancelled: whoever waits for it can.
    const gone = new Promise<readonly Address[]>((resolve) => {
      if (signal.aborted) resolve([]);
      signal.addEventListener("abort", () => resolve([]), { once: true });
    });
    return Promise.race([this.#network.resolve(name).catch(() => []), gone]);
  }

  /** Never rejects. `onLocal` gets the source of each attempt before the far end can have answered. */
  async dial(
    caller: Caller,
    target: GatewayTarget,
    onLocal: (local: Endpoint) => void,
    signal: AbortSignal,
  ): Promise<DialResult> {
    const untilMs = this.#nowMs() + this.#timeoutMs;
    const { to } = target;
    if ("path" in to) return this.#attempt(signal, this.#timeoutMs, undefined, (inner) => connectPath(to.path, inner));
    const addresses = await this.#withDeadline(signal, this.#timeoutMs, (inner) => this.resolve(to.host, inner));
    if (signal.aborted) return { kind: "aborted" };
    if (addresses.length === 0) return { kind: "unresolved" };
    const judged = this.judge(caller, target, addresses, "tcp", to.port);
    if (judged.kind === "denied") return judged;
    let outcome: DialOutcome = "timeout";
    for (const [index, endpoint] of judged.endpoints.entries()) {
      const leftMs = untilMs - this.#nowMs();
      if (leftMs <= 0) break;
      const timeoutMs = Math.min(leftMs, Math.max(ATTEMPT_MIN_MS, leftMs / (judged.endpoints.length - index)));
      const result = await this.#attempt(signal, timeoutMs, endpoint, (inner) =>
        this.#network.connectTcp(endpoint, onLocal, inner),
      );
      if (result.kind === "connected" || result.kind === "aborted" || result.kind === "denied") return result;
      if (outcome !== "refused") outcome = result.kind; // one that was there and refused says more than a silent one
    }
    return { kind: outcome };
  }

  async #attempt(
    signal: AbortSignal,
    timeoutMs: number,
    dialled: Endpoint | undefined,
    connect: (inner: AbortSignal) => Promise<LocalSocket>,
  ): Promise<DialResult> {
    try {
      const local = await this.#withDeadline(signal, timeoutMs, connect);
      return { kind: "connected", local, dialled };
    } catch (error) {
      const outcome = ERRNO_OUTCOMES[errnoOf(error)] ?? "unreachable";
      return { kind: outcome === "aborted" && !signal.aborted ? "timeout" : outcome };
    }
  }

  /** The work's signal ends with the caller's or with the time. */
  async #withDeadline<T>(signal: AbortSignal, timeoutMs: number, work: (inner: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    const onAbort = (): void => controller.abort();
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    const timer = setTimeout(onAbort, timeoutMs);
    try {
      return await work(controller.signal);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }
}

function connectPath(path: string, signal: AbortSignal): Promise<LocalSocket> {
  return whenConnected(connectLocal({ path }), signal);
}

function overlayPrefixes(network: NetworkEntry): readonly Prefix[] {
  return [parsePrefix(network.ula), parsePrefix(network.pool4)].filter((prefix) => prefix !== undefined);
}
