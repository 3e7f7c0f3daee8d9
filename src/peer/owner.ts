// Who is at the other end of a local TCP connection: an entry point carries its session's rights, so only the uid
// that runs the peer may use it. Asked of the kernel at accept, for the socket as the *client* holds it; not found is
// refused.
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { getuid, platform } from "node:process";
import { type Address, addressFromBytes, type Endpoint, equalAddress, isV4, parseAddress } from "../base/address.ts";
import { fromHex, readU32, writeU32Le } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { SockDiag } from "../io/ffi/sock-diag.ts";

export type OwnerCheckMode = "sock-diag" | "proc" | "refused";

/** The uid that owns the client's end of an established local connection; undefined: not found. */
export type OwnerLookup = (client: Endpoint, server: Endpoint) => number | undefined;

export type OwnerVerdict =
  | { readonly allowed: true }
  | {
      readonly allowed: false;
      readonly reason: "other-uid" | "not-found" | "not-local";
      readonly uid: number | undefined;
    };

const TCP_ESTABLISHED = "01";

/** /proc prints each 32-bit word of an address in host order (little-endian), the port in plain hexadecimal. */
function parseProcEndpoint(text: string): Endpoint | undefined {
  const [hexAddress, hexPort] = text.split(":");
  const bytes = hexAddress === undefined ? undefined : fromHex(hexAddress);
  if (bytes === undefined || hexPort === undefined || (bytes.length !== 4 && bytes.length !== 16)) return undefined;
  for (let at = 0; at < bytes.length; at += 4) writeU32Le(bytes, at, readU32(bytes, at));
  const address: Address = addressFromBytes(bytes, 0, bytes.length);
  return { address, port: Number.parseInt(hexPort, 16) };
}

/** From the text of /proc/net/tcp or tcp6. A dual-stack client stands in tcp6, with mapped addresses. */
export function findProcOwner(text: string, client: Endpoint, server: Endpoint): number | undefined {
  const port = `:${client.port.toString(16).toUpperCase().padStart(4, "0")} `;
  for (const line of text.split("\n")) {
    if (!line.includes(port)) continue;
    const [, local, remote, state, , , , uid, , inode] = line.trim().split(/\s+/);
    if (state !== TCP_ESTABLISHED || inode === undefined || inode === "0") continue;
    const from = parseProcEndpoint(local!);
    const to = parseProcEndpoint(remote!);
    if (from === undefined || to === undefined || from.port !== client.port || to.port !== server.port) continue;
    if (equalAddress(from.address, client.address) && equalAddress(to.address, server.address)) return Number(uid);
  }
  return undefined;
}

function procOwner(client: Endpoint, server: Endpoint): number | undefined {
  for (const path of isV4(client.address) ? ["/proc/net/tcp", "/proc/net/tcp6"] : ["/proc/net/tcp6"]) {
    try {
      const owner = findProcOwner(readFileSync(path, "latin1"), client, server);
      if (owner !== undefined) return owner;
    } catch {
      // No such file without IPv6: not found there.
    }
  }
  return undefined;
}

function isLoopback(address: Address): boolean {
  if (isV4(address)) return address.w3 >>> 24 === 127;
  return address.w0 === 0 && address.w1 === 0 && address.w2 === 0 && address.w3 === 1;
}

function endpointOf(address: string | undefined, port: number | undefined): Endpoint | undefined {
  const parsed = address === undefined ? undefined : parseAddress(address);
  return parsed === undefined || port === undefined ? undefined : { address: parsed, port };
}

export class OwnerCheck {
  readonly mode: OwnerCheckMode;
  readonly #uid: number;
  readonly #lookup: OwnerLookup;
  readonly #close: () => void;

  constructor(mode: OwnerCheckMode, uid: number, lookup: OwnerLookup, close: () => void = () => undefined) {
    this.mode = mode;
    this.#uid = uid;
    this.#lookup = lookup;
    this.#close = close;
  }

  /** For a peer without entry points: every client is refused. */
  static none(): OwnerCheck {
    return new OwnerCheck("refused", -1, () => undefined);
  }

  /**
   * The exact query where it is to be had, else /proc, else every TCP client is refused. Compares with this process's
   * uid.
   */
  static open(options: { readonly native?: boolean } = {}): OwnerCheck {
    const uid = getuid?.();
    if (platform !== "linux" || uid === undefined) return OwnerCheck.none();
    if (options.native === false) return new OwnerCheck("proc", uid, procOwner);
    try {
      const diag = SockDiag.open();
      return new OwnerCheck(
        "sock-diag",
        uid,
        (client, server) => diag.ownerOf(client, server),
        () => diag.close(),
      );
    } catch (error) {
      if (!(error instanceof WirebadgeError)) throw error;
      return new OwnerCheck("proc", uid, procOwner);
    }
  }

  /** Root's own peer takes root's connections alone: an entry point is one session's, not the machine's. */
  judge(client: Endpoint, server: Endpoint): OwnerVerdict {
    if (!isLoopback(client.address)) return { allowed: false, reason: "not-local", uid: undefined };
    const uid = this.#lookup(client, server);
    if (uid === undefined) return { allowed: false, reason: "not-found", uid };
    return uid === this.#uid ? { allowed: true } : { allowed: false, reason: "other-uid", uid };
  }

  /** Of a socket that a server has just accepted. */
  judgeSocket(socket: Socket): OwnerVerdict {
    const client = endpointOf(socket.remoteAddress, socket.remotePort);
    const server = endpointOf(socket.localAddress, socket.localPort);
    if (client === undefined || server === undefined) return { allowed: false, reason: "not-found", uid: undefined };
    return this.judge(client, server);
  }

  close(): void {
    this.#close();
  }
}
