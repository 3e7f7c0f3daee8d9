// Every context string under which the control plane signs, MACs or derives: one key may serve one purpose only because
// no two purposes share a string. A new meaning needs a new string, never a new reading of an old one.
import { concatBytes, utf8 } from "../base/bytes.ts";

export const PROTOCOL_VERSION = 1;
/** The oldest version that this build still serves. */
export const PROTOCOL_VERSION_MIN = 1;

export const CONTEXTS = {
  /** Noise prologue; the protocol version follows as one byte. */
  prologue: "wirebadge control",
  /** Session key over the handshake hash. */
  hello: "wirebadge hello 1",
  /** MAC under DH(WireGuard key, coordinator's challenge key). */
  possession: "wirebadge wireguard key possession 1",
  netmap: "wirebadge netmap 1",
  delta: "wirebadge netmap delta 1",
  lease: "wirebadge lease 1",
  /** One session's end, each signed by itself: peers show it to a coordinator that has forgotten it. */
  revocation: "wirebadge revocation 1",
  bookmark: "wirebadge bookmark 1",
  probe: "wirebadge endpoint probe 1",
  probeAnswer: "wirebadge endpoint probe answer 1",
} as const;

export type ContextName = keyof typeof CONTEXTS;

/** Context ‖ 0 ‖ parts: the zero byte ends the string, so that no context is a prefix of another's input. */
export function inContext(name: ContextName, ...parts: readonly Uint8Array[]): Uint8Array {
  return concatBytes(utf8(CONTEXTS[name]), Uint8Array.of(0), ...parts);
}

export function prologueOf(version: number): Uint8Array {
  return inContext("prologue", Uint8Array.of(version));
}

/** Where the WebSocket is, under the coordinator's URL. */
export const CONTROL_PATH = "/control";

/** `https://host/net` → `wss://host/net/control` */
export function controlUrl(url: string): string {
  const at = new URL(url);
  at.protocol = at.protocol === "https:" ? "wss:" : "ws:";
  at.pathname = at.pathname.replace(/\/+$/, "") + CONTROL_PATH;
  return at.href;
}
