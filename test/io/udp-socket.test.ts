import { describe, expect, it } from "vitest";
import { WirebadgeError } from "../../src/base/errors.ts";
import { Arena } from "../../src/io/ffi/arena.ts";
import { bindNative } from "../../src/io/ffi/koffi.ts";
import { Poller } from "../../src/io/ffi/poller.ts";
import { UdpSocket, udpSocketArenaBytes } from "../../src/io/ffi/udp-socket.ts";
import { needs } from "../needs.ts";
import { ip } from "../wire/packets.ts";
import { MemoryUdpNetwork } from "./memory-udp-socket.ts";
import {
  cut,
  expectFullBufferToDrop,
  expectSame,
  fillRun,
  LOOPBACK,
  receiveBytes,
  udpSocketContract,
} from "./udp-socket-contract.ts";

const ARENA_BYTES = 12 * 1024 * 1024;

describe.runIf(needs("linux", "ipv6"))("of the kernel", () => {
  udpSocketContract("UdpSocket", () => {
    const arena = new Arena(ARENA_BYTES);
    return { arena, open: (options) => UdpSocket.open(arena, options) };
  }, [4, 6]);

  function open(options: { bufferBytes?: number; receiveSlots?: number } = {}) {
    const arena = new Arena(ARENA_BYTES);
    const [a, b] = [4, 4].map(() => UdpSocket.open(arena, { family: 4, port: 0, ...options })) as [
      UdpSocket,
      UdpSocket,
    ];
    const close = (): void => {
      a.close();
      b.close();
    };
    const to = { address: LOOPBACK[4], port: b.port };
    return { arena, a, b, to, at: arena.allocateAt(65_536), [Symbol.dispose]: close };
  }

  it("takes no more of the arena than it says", () => {
    const arena = new Arena(ARENA_BYTES);
    const before = arena.freeBytes;
    UdpSocket.open(arena, { family: 4, port: 0 }).close();
    expect(before - arena.freeBytes).toBeLessThanOrEqual(udpSocketArenaBytes());
    const between = arena.freeBytes;
    UdpSocket.open(arena, { family: 4, port: 0, sendSlots: 8, receiveSlots: 2 }).close();
    expect(between - arena.freeBytes).toBeLessThanOrEqual(udpSocketArenaBytes(8, 2));
    const taken = arena.freeBytes;
    const first = UdpSocket.openPair(new Arena(ARENA_BYTES), { port: 0 });
    expect(() => UdpSocket.open(arena, { family: 4, port: first.port })).toThrow("EADDRINUSE");
    expect(arena.freeBytes).toBe(taken); // a port that is taken takes nothing
    first.v4?.close();
    first.v6?.close();
  });

  it("takes at most eight long runs at once after long ones, and as many short ones as before", () => {
    using w = open();
    /** How many came at a time. */
    const received = (count: number, bytes: number): number[] => {
      for (let i = 0; i < count; i++) {
        w.a.push(w.at, bytes, Math.min(bytes, 1_000), w.to);
        w.a.flush();
      }
      const calls: number[] = [];
      for (let came = w.b.receive(); came > 0; came = w.b.receive()) calls.push(came);
      return calls;
    };
    expect(received(10, 17_000)).toEqual([10]);
    expect(received(10, 17_000)).toEqual([8, 2]); // two are not long enough to go on so
    expect(received(10, 17_000)).toEqual([10]);
    expect(received(10, 100)).toEqual([8, 2]);
    expect(received(10, 100)).toEqual([10]);
  });

  it("opens both families on one port number", () => {
    const arena = new Arena(ARENA_BYTES);
    const { port, v4, v6 } = UdpSocket.openPair(arena, { port: 0 });
    expect([v4?.port, v6?.port]).toEqual([port, port]);
    expect(() => UdpSocket.openPair(arena, { port })).toThrow("EADDRINUSE");
    v4?.close();
    expect(() => UdpSocket.openPair(arena, { port })).toThrow("EADDRINUSE"); // IPv6 alone holds it as well
    v6?.close();
  });

  it("gives a port number free again", () => {
    const reopened = (): boolean => {
      const arena = new Arena(ARENA_BYTES);
      const first = UdpSocket.openPair(arena, { port: 0 });
      first.v4?.close();
      first.v6?.close();
      try {
        const again = UdpSocket.openPair(arena, { port: first.port });
        again.v4?.close();
        again.v6?.close();
        return again.port === first.port;
      } catch (error) {
        if (error instanceof WirebadgeError && error.code === "PORT_TAKEN") return false; // by another process
        throw error;
      }
    };
    expect([1, 2, 3].some(reopened)).toBe(true);
  });

  it("goes on without GSO, and loses nothing, where the kernel refuses a run but not its datagrams", () => {
    using w = open();
    const noChecksum = bindNative("setsockopt", "int", "int", "int", "int", "uintptr_t", "uint32_t");
    w.arena.words[w.arena.scratchAt / 4] = 1;
    // SO_NO_CHECK: then UDP_SEGMENT is EINVAL, as EIO on devices that can't do checksums was before Linux 6.11.
    expect(noChecksum(w.a.fd, 1, 11, w.arena.baseAddress + w.arena.scratchAt, 4)).toBe(0);
    fillRun(w.arena, w.at, 43_600, 3);
    expect(w.a.gso).toBe(true);
    w.a.push(w.at, 400, 400, w.to); // before and behind it in the same flush
    w.a.push(w.at, 43_600, 1452, w.to);
    w.a.push(w.at, 4000, 1400, w.to);
    w.a.flush();
    const expected = [...cut(w.arena, w.at, 400, 400), ...cut(w.arena, w.at, 43_600, 1452)];
    expected.push(...cut(w.arena, w.at, 4000, 1400));
    expectSame(receiveBytes(w.arena, w.b, 48_000), expected);
    expect(w.a.gso).toBe(false);
    expect(w.a.counters).toMatchObject({ "gso-EINVAL": 2 });
    expect(Object.keys(w.a.counters).filter((name) => name.startsWith("send-E"))).toEqual([]);
    const calls = w.a.counters["send-calls"]!;
    w.a.push(w.at, 43_600, 1452, w.to); // cut before it is tried
    w.a.flush();
    expectSame(receiveBytes(w.arena, w.b, 43_600), cut(w.arena, w.at, 43_600, 1452));
    expect(w.a.counters).toMatchObject({ "gso-EINVAL": 2, "send-calls": calls + 1 });
  });

  it("does not take an endpoint that nothing can be sent to for a device without GSO", () => {
    const arena = new Arena(ARENA_BYTES);
    const socket = UdpSocket.open(arena, { family: 6, port: 0 });
    const receiver = UdpSocket.open(arena, { family: 6, port: 0 });
    const at = arena.allocateAt(65_536);
    socket.push(at, 3500, 1000, { address: LOOPBACK[6], port: 0 }); // EINVAL, for a run and for a datagram
    socket.push(at, 2000, 1000, { address: LOOPBACK[6], port: receiver.port });
    socket.flush();
    expect(socket.counters).toMatchObject({ "send-EINVAL": 4 });
    expect(socket.gso).toBe(true);
    expect(receiveBytes(arena, receiver, 2000)).toHaveLength(2); // and what stands behind it goes out
    socket.close();
    receiver.close();
  });

  it("counts what one datagram too long or a forbidden target loses, by name, and goes on", () => {
    using w = open();
    const broadcast = { address: ip("127.255.255.255"), port: 9 }; // without SO_BROADCAST
    w.a.push(w.at, 1000, 1000, broadcast);
    w.a.push(w.at, 1000, 1000, w.to);
    w.a.push(w.at, 1000, 1000, broadcast);
    w.a.flush();
    expect(w.a.counters).toMatchObject({ "send-EACCES": 2 });
    expect(receiveBytes(w.arena, w.b, 1000)).toHaveLength(1);
  });

  it("is what poll(2) waits for", () => {
    using w = open();
    const poller = new Poller(w.arena, [w.b.fd]);
    expect(poller.wait(0)).toBe(0);
    w.a.push(w.at, 100, 100, w.to);
    w.a.flush();
    expect(poller.wait(2_000)).toBe(1);
    expect(poller.events(0)).toBe(1);
  });

  it.runIf(needs("root"))("marks what it sends, where it may", () => {
    using w = open();
    w.a.setMark(0x51820);
    w.a.push(w.at, 100, 100, w.to);
    w.a.flush();
    expect(receiveBytes(w.arena, w.b, 100)).toHaveLength(1);
    w.a.setMark(0);
    w.a.close();
    expect(() => w.a.setMark(1)).toThrow(
      expect.objectContaining({ code: "NATIVE_UNAVAILABLE", hint: expect.stringContaining("CAP_NET_ADMIN") }),
    );
  });
});

udpSocketContract("MemoryUdpSocket", () => {
  const arena = new Arena(ARENA_BYTES);
  const network = new MemoryUdpNetwork();
  return { arena, open: (options) => network.open(arena, options) };
}, [4, 6]);

describe("MemoryUdpSocket", () => {
  it.each([
    [false, true],
    [true, false],
    [false, false],
  ])("carries the same without GSO or GRO: %s, %s", (gso, gro) => {
    const arena = new Arena(ARENA_BYTES);
    const network = new MemoryUdpNetwork();
    const a = network.open(arena, { family: 4, port: 0, gso });
    const b = network.open(arena, { family: 4, port: 0, gro });
    const at = arena.allocateAt(65_536);
    fillRun(arena, at, 10_001, 4);
    a.push(at, 10_001, 1000, { address: LOOPBACK[4], port: b.port });
    a.flush();
    expectSame(receiveBytes(arena, b, 10_001), cut(arena, at, 10_001, 1000));
    expect(b.counters["receive-messages"]).toBe(11);
  });

  it("waits for room, then drops and counts", () => {
    const arena = new Arena(ARENA_BYTES);
    const network = new MemoryUdpNetwork();
    const sender = network.open(arena, { family: 4, port: 0, bufferBytes: 131_072 });
    const receiver = network.open(arena, { family: 4, port: 0 });
    network.stop();
    const to = { address: LOOPBACK[4], port: receiver.port };
    expectFullBufferToDrop({ arena, sender, receiver, to, go: () => network.go() });
  });

  it("loses what comes to a full receiver, as the kernel does", () => {
    const arena = new Arena(ARENA_BYTES);
    const network = new MemoryUdpNetwork();
    const sender = network.open(arena, { family: 4, port: 0 });
    const receiver = network.open(arena, { family: 4, port: 0, bufferBytes: 2_500 });
    const at = arena.allocateAt(4000);
    for (let i = 0; i < 4; i++) sender.push(at, 1000, 1000, { address: LOOPBACK[4], port: receiver.port });
    sender.flush();
    expect(receiveBytes(arena, receiver, 2000)).toHaveLength(2);
    expect(receiver.receive()).toBe(0);
  });
});
