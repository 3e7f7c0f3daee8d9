// What the packet thread reads and writes, apart from where it comes from: a TUN device and UDP sockets of the kernel
// (ffi/tun-device.ts, ffi/udp-socket.ts) or their twins in memory. Packets are named by offsets into one arena, whose
// bytes never move; a call makes no garbage.
import type { Endpoint } from "../base/address.ts";

export { VNET_HEADER_BYTES } from "../wire/vnet-header.ts";

/** Where packets lie: `Arena` is one. */
export interface PacketMemory {
  readonly bytes: Uint8Array;
  allocateAt(sizeBytes: number): number;
}

export interface PacketDevice {
  readonly name: string;
  /** For poll(2); -1 once closed, or in memory. */
  readonly fd: number;
  /** What the kernel leaves to us: packets above the MTU and without checksums, to be cut as their header says. */
  readonly offloads: { readonly tso: boolean; readonly uso: boolean };
  /**
   * One packet behind its virtio_net_hdr at `at`. Bytes with that header; 0: none is waiting; negative: -errno. A
   * packet longer than `capacity` is cut off there.
   */
  read(at: number, capacity: number): number;
  /** [virtio_net_hdr][packet]. Bytes written, or -errno: then the packet is lost, as on any link. */
  write(at: number, length: number): number;
  /** The same gathered from `count` places, the first of which holds the header whole. At most 64. */
  writev(offsets: Int32Array, lengths: Int32Array, count: number): number;
  close(): void;
}

export interface DatagramSocket {
  readonly port: number;
  /** For poll(2); -1 once closed, or in memory. */
  readonly fd: number;
  /** Whether a run goes out by one call (UDP_SEGMENT); if not it is cut here. May end while the socket is in use. */
  readonly gso: boolean;
  /** Whether the kernel may join what it received (UDP_GRO). */
  readonly gro: boolean;
  /**
   * By name, in datagrams unless said otherwise: `send-ERRNO` and `receive-bad-source` lost; `receive-ERRNO`,
   * `send-calls`, `receive-calls`, `send-waits` calls; `send-runs`, `gso-ERRNO` runs; `receive-messages` messages;
   * `buffer-ERRNO` a size refused.
   */
  readonly counters: Readonly<Record<string, number>>;
  /** Messages now in the slots, until the next call; 0: none is waiting; negative: -errno, counted. */
  receive(): number;
  /** Offset of message `i`. It may be changed where it lies. */
  messageAt(i: number): number;
  /** 0: not to be looked at (no sender that could be answered). */
  messageBytes(i: number): number;
  /** Of each datagram in it but the last, which may be shorter; `messageBytes` when it is only one. */
  segmentBytes(i: number): number;
  /** The same object as long as the sender stays the same. */
  source(i: number): Endpoint;
  /**
   * Queues datagrams that lie back to back, all of `segmentBytes` but the last, which may be shorter: at most 64 and
   * 65,000 bytes. The bytes must stay until the next `flush`, which 64 waiting runs bring about by themselves.
   */
  push(at: number, length: number, segmentBytes: number, to: Endpoint): void;
  /** Sends what was queued, or counts it as lost. Waits for room in the socket's buffer, at most 20 ms in all. */
  flush(): void;
  /** SO_MARK of what is sent from now on, for policy routing; 0: none. */
  setMark(mark: number): void;
  close(): void;
}
