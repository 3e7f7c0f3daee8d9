// The package's entry: joins a network from within a program, without root, without a port for others on this host.
import { WirebadgeError } from "../base/errors.ts";
import { JOIN_TIMEOUT_MS } from "../base/limits.ts";
import { isCoordinatorUrl } from "../control/token.ts";
import type { Logger } from "../peer/logger.ts";
import { startPeer } from "../peer/peer.ts";
import { LoopHold } from "./loop-hold.ts";
import { Network } from "./network.ts";

export { WirebadgeError } from "../base/errors.ts";
export type { Can, Denial, Status, Whois } from "../peer/local-api-schema.ts";
export type { Logger } from "../peer/logger.ts";
export { ConnectError } from "./connect-error.ts";
export type { ConnectOptions, Network, NetworkChange, NetworkEvents } from "./network.ts";
export type { ConnectionTaker, ListenOptions } from "./overlay-server.ts";

export interface JoinOptions {
  /** `wb_join_…`, from `wirebadge token create`. With a `state` folder it is needed once. */
  readonly token?: string | undefined;
  /**
   * Folder for the session's keys (0600), so that a restart is the same session again; one process at a time. Without
   * it they stay in memory: each process is a session of its own, each start takes one use of the token, and `close`
   * ends the session at the coordinator.
   */
  readonly state?: string | undefined;
  /** Where the coordinator is reached, if not where the token says; its key stays the one that the token pins. */
  readonly url?: string | undefined;
  /** UDP port for WireGuard; any free one unless given. */
  readonly listenPort?: number | undefined;
  /** Until the first peer list and lease are in force; 30,000 unless given. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** pino's, or any with the same methods; nothing is logged unless given. */
  readonly logger?: Logger | undefined;
}

const SILENT: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };

/**
 * Resolves once the network can be used. It does not keep the process alive; what is open on it does.
 * @example
 * await using net = await join({ token: process.env["WIREBADGE_TOKEN"] });
 * const response = await net.fetch("http://staging/");
 * @throws WirebadgeError with `code` and `hint`: TOKEN_SPENT, COORDINATOR_UNREACHABLE, TIMEOUT …
 */
export async function join(options: JoinOptions): Promise<Network> {
  const { token, state, url, signal, timeoutMs = JOIN_TIMEOUT_MS, logger = SILENT } = options;
  if (url !== undefined && !isCoordinatorUrl(url)) {
    throw new WirebadgeError("USAGE", `${JSON.stringify(url)} is no coordinator's URL`, {
      hint: "http://HOST:PORT or https://HOST",
    });
  }
  const timeout = AbortSignal.timeout(timeoutMs);
  const hold = new LoopHold();
  let network: Network | undefined;
  // Not from within the peer: a listener may ask it things, or throw.
  const tell = (what: (joined: Network) => void): void => {
    process.nextTick(() => network !== undefined && what(network));
  };
  hold.hold();
  try {
    const peer = await startPeer({
      token,
      stateDir: state,
      listenPort: options.listenPort,
      routes: [],
      serves: [],
      socks: undefined,
      allowRemote: false,
      forwards: [],
      exposes: [],
      tun: undefined,
      shared: false,
      dns: false,
      ipForward: false,
      requireNative: false,
      logger,
      onDenial: (denial) => tell((joined) => joined.emit("denial", denial)),
      embedded: {
        inMemory: state === undefined,
        url,
        signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
        onNetmap: ({ policyVersion, epoch, revision }) =>
          tell((joined) => joined.emit("change", { policyVersion, epoch, revision })),
        onControl: (connected) => tell((joined) => joined.emit(connected ? "connected" : "disconnected")),
      },
    });
    network = new Network(peer, hold);
    return network;
  } catch (error) {
    if (signal?.aborted === true) throw signal.reason;
    throw withHint(error, options);
  } finally {
    hold.release();
  }
}

/** A token that a former start of the same program has used up is the mistake that a session in memory invites. */
function withHint(error: unknown, { state }: JoinOptions): unknown {
  if (!(error instanceof WirebadgeError) || error.code !== "TOKEN_SPENT" || state !== undefined) return error;
  return new WirebadgeError("TOKEN_SPENT", error.message, {
    hint: "each start takes one use: give a `state` folder to come back with, or a token of more --uses",
    cause: error,
  });
}

function ignore(): void {
  // Nobody asked for a log.
}
