// What the main thread and the data thread tell each other. States go over whole, with a revision; packets never do.
import type { MessagePort } from "node:worker_threads";
import type { KeyPair } from "../crypto/provider.ts";
import type { DesiredState } from "../engine/desired-state.ts";
import type { PeerStatus } from "../engine/engine-peer.ts";
import type { OpenedTun } from "../io/ffi/tun-device.ts";
import type { OpenedUdp } from "../io/ffi/udp-open.ts";

/** The main thread has opened the device and the sockets and keeps them: they outlive a data thread that fails. */
export interface DataThreadStart {
  readonly port: MessagePort;
  readonly wakeFd: number;
  /** Int32: 1 in the first place asks the thread to end. */
  readonly stop: SharedArrayBuffer;
  readonly tun: OpenedTun;
  readonly udp: { readonly v4: OpenedUdp | undefined; readonly v6: OpenedUdp | undefined };
  readonly keyPair: KeyPair;
  readonly mode: "badge" | "wg";
  readonly mtuBytes: number;
  readonly requireNative: boolean;
  /** TAI64N of the last initiation sent, when there was one. */
  readonly lastTimestamp: Uint8Array | undefined;
  /** What it is from its first packet on: without peers it would answer live connections by resets. */
  readonly state: DesiredState | undefined;
}

export type DataThreadCommand =
  | { readonly kind: "apply"; readonly id: number; readonly state: DesiredState }
  | { readonly kind: "status"; readonly id: number }
  /** Handshakes with these, unless there is a session already. */
  | { readonly kind: "reach"; readonly sessions: readonly string[] };

export interface RefusedPeer {
  readonly session: string;
  readonly reason: string;
}

export interface DataThreadStatus {
  readonly peers: readonly PeerStatus[];
  readonly counters: Readonly<Record<string, number>>;
  /** Of the thread's clock, as all times in `peers`. */
  readonly nowMs: number;
  readonly lastTimestamp: Uint8Array | undefined;
}

export type DataThreadEvent =
  /** `reason`: why the native crypto is not in use; undefined when it is. */
  | { readonly kind: "started"; readonly reason: string | undefined }
  | { readonly kind: "applied"; readonly id: number; readonly refused: readonly RefusedPeer[] }
  | { readonly kind: "status"; readonly id: number; readonly status: DataThreadStatus }
  | { readonly kind: "tunnel-up"; readonly session: string }
  | { readonly kind: "tunnel-failed"; readonly session: string }
  | { readonly kind: "lost"; readonly what: "tun" | "udp"; readonly errno: string };
