// What commands set in motion. The real one loads a part only when its command runs, so that `wirebadge status`
// starts fast; tests give their own.
import type { Logger } from "pino";
import type { Can, Denial, Denials, EntryPoint, Ping, Status, Whois } from "../peer/local-api-schema.ts";
import type { NamesShown } from "../peer/tun/badge-names.ts";
import type { AdminClient, AdminClientOptions } from "./admin-client.ts";
import type { EntryOptions } from "./entry-options.ts";
import type { Running, SignalSource } from "./lifetime.ts";

export interface CoordinatorStart {
  readonly dataDir: string;
  readonly listen: string;
  readonly url: string | undefined;
  readonly udp: string | undefined;
  readonly adminListen: string;
  readonly networkName: string | undefined;
  readonly logger: Logger;
}

export interface CoordinatorReady extends Running {
  readonly url: string;
  readonly adminUrl: string;
  readonly adminTokenFile: string;
  readonly networkId: string;
}

export interface PeerStart extends EntryOptions {
  readonly token: string | undefined;
  readonly stateDir: string | undefined;
  readonly listenPort: number | undefined;
  /** A TUN device of that name, "": the first free one; undefined: rootless. */
  readonly tun: string | undefined;
  /** With `tun`: also the badge of an agent. */
  readonly shared: boolean;
  readonly dns: boolean;
  readonly ipForward: boolean;
  readonly requireNative: boolean;
  readonly logger: Logger;
  readonly onDenial: (denial: Denial) => void;
}

export interface PeerReady extends Running {
  readonly identity: string;
  readonly session: string;
  readonly addresses: readonly string[];
  readonly entryPoints: readonly EntryPoint[];
  /** The device's name. */
  readonly tun?: string;
  readonly names?: NamesShown;
}

export interface WgStart {
  readonly configText: string;
  readonly fileName: string;
  readonly socks: string | undefined;
  readonly forwards: readonly string[];
  readonly exposes: readonly string[];
  /** A TUN device of that name, "": named after the file; undefined: rootless. */
  readonly tun: string | undefined;
  readonly ignoreHooks: boolean;
  readonly requireNative: boolean;
  readonly logger: Logger;
}

export interface WgReady extends Running {
  readonly publicKey: string;
  readonly addresses: readonly string[];
  readonly entryPoints: readonly EntryPoint[];
  /** The device's name. */
  readonly tun?: string;
}

/** The running peer, asked over its state folder's socket. */
export interface LocalApi {
  status(): Promise<Status>;
  whois(of: string): Promise<Whois>;
  can(destination: string): Promise<Can>;
  denials(): Promise<Denials>;
  ping(name: string): Promise<Ping>;
}

export interface Runtime {
  readonly signals: SignalSource;
  adminClient(options: AdminClientOptions): Pick<AdminClient, "call">;
  startCoordinator(options: CoordinatorStart): Promise<CoordinatorReady>;
  startPeer(options: PeerStart): Promise<PeerReady>;
  startWgMode(options: WgStart): Promise<WgReady>;
  /** Of the state folder, or of the only running peer. @throws PEER_NOT_RUNNING, PEER_AMBIGUOUS */
  localApi(stateDir: string | undefined): Promise<LocalApi>;
}
