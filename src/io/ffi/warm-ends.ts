// Two ends for packets that pass before real ones and between them (peer/warm-up.ts): UDP sockets on loopback that take
// datagrams of each other alone, and sockets in the place of TUN devices. Same classes, same system calls as the real
// ones: what is compiled for those, by V8, and in the caches, of the kernel's code too, is then there for these.
import type { Endpoint } from "../../base/address.ts";
import { makeV4 } from "../../base/address.ts";
import { WirebadgeError } from "../../base/errors.ts";
import type { Arena } from "./arena.ts";
import { lastErrno, systemError } from "./errno.ts";
import { bindNative, type NativeFunction } from "./koffi.ts";
import { Poller } from "./poller.ts";
import { TUN_ARENA_BYTES, TunDevice } from "./tun-device.ts";
import { V4_NAME_BYTES, writeFamilyAndPort } from "./udp-open.ts";
import { UdpSocket, udpSocketArenaBytes } from "./udp-socket.ts";

const AF_UNIX = 1;
const SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 | 0x800 | 0x80000;
const LOOPBACK = 0x7f000001;
const BUFFER_BYTES = 1 << 18;
const SLOTS = 1;
const FRAME_MAX_BYTES = 65_536;
const NONE = -1; // a descriptor that poll(2) passes over

/** What two ends take of their arena. */
export const WARM_ENDS_ARENA_BYTES = 2 * (udpSocketArenaBytes(SLOTS, SLOTS) + TUN_ARENA_BYTES + FRAME_MAX_BYTES + 512);

interface Libc {
  readonly socketpair: NativeFunction;
  readonly connect: NativeFunction;
  readonly read: NativeFunction;
  readonly write: NativeFunction;
  readonly close: NativeFunction;
}

function loadLibc(): Libc {
  const at = "uintptr_t";
  return {
    socketpair: bindNative("socketpair", "int", "int", "int", "int", at),
    connect: bindNative("connect", "int", "int", at, "uint32_t"),
    read: bindNative("read", "long", "int", at, "size_t"),
    write: bindNative("write", "long", "int", at, "size_t"),
    close: bindNative("close", "int", "int"),
  };
}

export class WarmEnd {
  readonly tun: TunDevice;
  readonly udp: UdpSocket;
  /** Never waits. */
  readonly poller: Poller;
  readonly endpoint: Endpoint;
  readonly #libc: Libc;
  readonly #arena: Arena;
  readonly #hostFd: number;
  readonly #frameAt: number;

  private constructor(libc: Libc, arena: Arena, udp: UdpSocket) {
    const at = arena.scratchAt;
    if (libc.socketpair(AF_UNIX, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0, arena.baseAddress + at) < 0) fail("socketpair");
    const [fd, hostFd] = [arena.words[at / 4]!, arena.words[at / 4 + 1]!];
    this.tun = TunDevice.adopt(arena, { fd, name: "warm-up", hasHeader: true, offloads: { tso: true, uso: true } });
    this.udp = udp;
    this.poller = new Poller(arena, [NONE, fd, udp.fd, NONE], 0);
    this.endpoint = { address: makeV4(LOOPBACK), port: udp.port };
    this.#libc = libc;
    this.#arena = arena;
    this.#hostFd = hostFd;
    this.#frameAt = arena.allocateAt(FRAME_MAX_BYTES);
  }

  /** @throws WirebadgeError NATIVE_UNAVAILABLE, PORT_TAKEN: there is no loopback device, or it is down */
  static open(arena: Arena): [WarmEnd, WarmEnd] {
    const libc = loadLibc();
    const options = { family: 4, port: 0, address: LOOPBACK, sendSlots: SLOTS, receiveSlots: SLOTS } as const;
    const opened: UdpSocket[] = [];
    try {
      for (let end = 0; end < 2; end++) opened.push(UdpSocket.open(arena, { ...options, bufferBytes: BUFFER_BYTES }));
      const [one, other] = opened as [UdpSocket, UdpSocket];
      connect(libc, arena, one.fd, other.port);
      connect(libc, arena, other.fd, one.port);
      return [new WarmEnd(libc, arena, one), new WarmEnd(libc, arena, other)];
    } catch (error) {
      for (const socket of opened) socket.close();
      throw error;
    }
  }

  /** A packet with its vnet header before it, as the host's kernel would hand it over. */
  hostSends(frame: Uint8Array): void {
    const { bytes, baseAddress } = this.#arena;
    bytes.set(frame, this.#frameAt);
    this.#libc.write(this.#hostFd, baseAddress + this.#frameAt, frame.length);
  }

  /** Whether there was one, which then is gone. */
  hostReceives(): boolean {
    return this.#libc.read(this.#hostFd, this.#arena.baseAddress + this.#frameAt, FRAME_MAX_BYTES) > 0;
  }

  close(): void {
    this.udp.close();
    this.tun.close();
    this.#libc.close(this.#hostFd);
  }
}

function connect(libc: Libc, arena: Arena, fd: number, port: number): void {
  const at = arena.scratchAt;
  arena.bytes.fill(0, at, at + V4_NAME_BYTES);
  writeFamilyAndPort(arena, at, true, port);
  arena.bytes.set([127, 0, 0, 1], at + 4);
  if (libc.connect(fd, arena.baseAddress + at, V4_NAME_BYTES) < 0) fail("connect");
}

function fail(call: string): never {
  const cause = systemError(call, lastErrno());
  throw new WirebadgeError("NATIVE_UNAVAILABLE", `no loopback to warm up over (${cause.code})`, {
    hint: "ip link set lo up",
    cause,
  });
}
