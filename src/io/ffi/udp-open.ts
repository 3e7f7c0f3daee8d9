// How a UDP socket for runs of datagrams is made: options, buffers, port. udp-socket.ts uses it.
import { readU16, writeU16, writeU32 } from "../../base/bytes.ts";
import { WirebadgeError } from "../../base/errors.ts";
import { UDP_BUFFER_BYTES } from "../../base/limits.ts";
import { isFamilyMissing, portTaken } from "../port-taken.ts";
import type { Arena } from "./arena.ts";
import { errnoName, lastErrno, systemError } from "./errno.ts";
import { bindNative, hasLinuxLayouts, type NativeFunction } from "./koffi.ts";

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 | 0x800 | 0x80000;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32; // past the administrator's limit; refused without CAP_NET_ADMIN of the outermost namespace
const SO_RCVBUFFORCE = 33;
const SO_MARK = 36;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
export const SOL_UDP = 17;
export const UDP_SEGMENT = 103;
export const UDP_GRO = 104;

export const NAME_BYTES = 28; // struct sockaddr_in6, the longer one; family u16, port u16, …
export const V4_NAME_BYTES = 16;
export const NAME_ROOM = 32;

export interface UdpLibc {
  readonly socket: NativeFunction;
  readonly setsockopt: NativeFunction;
  readonly bind: NativeFunction;
  readonly getsockname: NativeFunction;
  readonly sendmmsg: NativeFunction;
  readonly recvmmsg: NativeFunction;
  readonly poll: NativeFunction;
  readonly close: NativeFunction;
}

let libc: UdpLibc | undefined;

function loadLibc(): UdpLibc {
  const at = "uintptr_t";
  return {
    socket: bindNative("socket", "int", "int", "int", "int"),
    setsockopt: bindNative("setsockopt", "int", "int", "int", "int", at, "uint32_t"),
    bind: bindNative("bind", "int", "int", at, "uint32_t"),
    getsockname: bindNative("getsockname", "int", "int", at, at),
    sendmmsg: bindNative("sendmmsg", "int", "int", at, "unsigned int", "int"),
    recvmmsg: bindNative("recvmmsg", "int", "int", at, "unsigned int", "int", at),
    poll: bindNative("poll", "int", at, "unsigned long", "int"),
    close: bindNative("close", "int", "int"),
  };
}

/** @throws WirebadgeError NATIVE_UNAVAILABLE */
export function udpLibc(): UdpLibc {
  try {
    if (!hasLinuxLayouts()) throw new Error("only on 64-bit Linux");
    libc ??= loadLibc();
    return libc;
  } catch (cause) {
    const hint = "leave out --tun: the rootless driver uses Node's own sockets";
    throw new WirebadgeError("NATIVE_UNAVAILABLE", "no native UDP sockets here", { hint, cause });
  }
}

export interface UdpSocketOptions {
  readonly family: 4 | 6;
  /** 0: the system chooses. */
  readonly port: number;
  /** IPv4's, 32 bits; all of them when absent. */
  readonly address?: number;
  /** SO_MARK, for policy routing. Needs CAP_NET_ADMIN. */
  readonly mark?: number;
  /** Runs that wait until they are sent by themselves. */
  readonly sendSlots?: number;
  /** Messages of one `receive`, 64 KiB of the arena each. */
  readonly receiveSlots?: number;
  /** What one flush waits for room at most, the thread with it; UDP_SEND_WAIT_MAX_MS when absent. */
  readonly sendWaitMs?: number;
  /** Of the socket's own buffer, each direction. */
  readonly bufferBytes?: number;
}

/** Family and port of a sockaddr whose address stays as it is. */
export function writeFamilyAndPort(arena: Arena, at: number, v4: boolean, port: number): void {
  arena.words[at / 4] = v4 ? AF_INET : AF_INET6; // and port 0
  writeU16(arena.bytes, at + 2, port);
}

export interface OpenedUdp {
  readonly fd: number;
  readonly port: number;
  readonly gso: boolean;
  readonly gro: boolean;
  /** Counters of what was not granted. */
  readonly refused: readonly string[];
}

function setOption(functions: UdpLibc, arena: Arena, fd: number, level: number, name: number, value: number): number {
  const at = arena.scratchAt;
  arena.words[at / 4] = value;
  return functions.setsockopt(fd, level, name, arena.baseAddress + at, 4) === 0 ? 0 : lastErrno();
}

export function setMark(functions: UdpLibc, arena: Arena, fd: number, mark: number): void {
  const errno = setOption(functions, arena, fd, SOL_SOCKET, SO_MARK, mark);
  if (errno === 0) return;
  throw new WirebadgeError("NATIVE_UNAVAILABLE", `packets can't be marked (${errnoName(errno)})`, {
    hint: "run as root or with CAP_NET_ADMIN, or leave out the firewall mark",
    cause: systemError("setsockopt SO_MARK", errno),
  });
}

/**
 * The kernel's default for path MTU discovery stays (IP_PMTUDISC_WANT, as in wireguard-go): DF is set, and where a path
 * has said that it is narrower the kernel fragments. Always fragmenting (DONT) would hide a wrong MTU at the price of
 * losing the whole datagram with any fragment; never (DO) would lose handshakes on such paths.
 */
export function openUdp(
  functions: UdpLibc,
  arena: Arena,
  { family, port, address = 0, mark, bufferBytes }: UdpSocketOptions,
): OpenedUdp {
  const v4 = family === 4;
  const fd = functions.socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0);
  if (fd < 0) throw portTaken(port, systemError("socket", lastErrno()));
  try {
    const at = arena.scratchAt;
    const set = (level: number, name: number, value: number): number =>
      setOption(functions, arena, fd, level, name, value);
    if (!v4) set(IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (mark !== undefined && mark !== 0) setMark(functions, arena, fd, mark);
    const refused: string[] = [];
    const size = bufferBytes ?? UDP_BUFFER_BYTES;
    for (const [force, plain] of [
      [SO_RCVBUFFORCE, SO_RCVBUF],
      [SO_SNDBUFFORCE, SO_SNDBUF],
    ] as const) {
      const errno = set(SOL_SOCKET, force, size);
      if (errno === 0) continue;
      refused.push(`buffer-${errnoName(errno)}`);
      set(SOL_SOCKET, plain, size); // as much as the administrator allows (net.core.rmem_max, wmem_max)
    }
    arena.bytes.fill(0, at, at + NAME_BYTES);
    writeFamilyAndPort(arena, at, v4, port);
    if (v4) writeU32(arena.bytes, at + 4, address);
    const nameBytes = v4 ? V4_NAME_BYTES : NAME_BYTES;
    if (functions.bind(fd, arena.baseAddress + at, nameBytes) < 0) {
      throw portTaken(port, systemError("bind", lastErrno()));
    }
    arena.words[(at + NAME_ROOM) / 4] = nameBytes;
    functions.getsockname(fd, arena.baseAddress + at, arena.baseAddress + at + NAME_ROOM);
    const bound = readU16(arena.bytes, at + 2);
    const gso = set(SOL_UDP, UDP_SEGMENT, 0) === 0; // 0: no size of its own; known at all since Linux 4.18
    const gro = set(SOL_UDP, UDP_GRO, 1) === 0;
    return { fd, port: bound, gso, gro, refused };
  } catch (error) {
    functions.close(fd);
    throw error;
  }
}

const PAIR_ATTEMPTS = 9; // a number that the system chose for IPv4 may be taken for IPv6

/** One of them at least. @throws WirebadgeError PORT_TAKEN, NATIVE_UNAVAILABLE */
export function openUdpPair(
  functions: UdpLibc,
  arena: Arena,
  options: Omit<UdpSocketOptions, "family">,
): { v4: OpenedUdp | undefined; v6: OpenedUdp | undefined } {
  for (let attempt = 1; ; attempt++) {
    const v4 = openIfThere(functions, arena, { ...options, family: 4 });
    try {
      const v6Options = { ...options, family: 6, port: v4?.port ?? options.port } as const;
      const v6 = v4 === undefined ? openUdp(functions, arena, v6Options) : openIfThere(functions, arena, v6Options);
      return { v4, v6 };
    } catch (error) {
      if (v4 !== undefined) functions.close(v4.fd);
      if (options.port !== 0 || attempt === PAIR_ATTEMPTS) throw error;
    }
  }
}

/** Undefined when the machine does not have that family. */
function openIfThere(functions: UdpLibc, arena: Arena, options: UdpSocketOptions): OpenedUdp | undefined {
  try {
    return openUdp(functions, arena, options);
  } catch (error) {
    if (error instanceof WirebadgeError && isFamilyMissing(error.cause)) return undefined;
    throw error;
  }
}
