// The UDP socket for runs over links that are not loopback: a narrow one, one that stands still, a slow one, one that
// a firewall closes.
import { readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UDP_LOOP_SEND_WAIT_MAX_MS, UDP_NARROW_RUNS, UDP_SEND_WAIT_MAX_MS } from "../../src/base/limits.ts";
import { Arena } from "../../src/io/ffi/arena.ts";
import { bindNative } from "../../src/io/ffi/koffi.ts";
import { UdpSocket } from "../../src/io/ffi/udp-socket.ts";
import { inNamespace } from "../inside-namespace.ts";
import { cut, expectFullBufferToDrop, expectSame, fillRun, receiveBytes } from "../io/udp-socket-contract.ts";
import { Lab } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { ip } from "../wire/packets.ts";

const ARENA_BYTES = 16 * 1024 * 1024;
const ADDRESSES = {
  4: ["10.1.0.1", "10.1.0.2"],
  6: ["fd00:1::1", "fd00:1::2"],
} as const;

describe.runIf(needs("netns"))("a UDP socket on a link", () => {
  let lab: Lab;
  let worlds = 0;
  beforeAll(() => {
    lab = new Lab();
  });
  afterAll(() => lab.close());

  function world(family: 4 | 6 = 4, senderOptions: { bufferBytes?: number; sendWaitMs?: number } = {}) {
    const near = lab.namespace(`near${worlds}`);
    const far = lab.namespace(`far${worlds++}`);
    const bits = family === 4 ? 24 : 64;
    const [nearDevice, farDevice] = lab.link(
      { namespace: near, addresses: [`${ADDRESSES[family][0]}/${bits}`] },
      { namespace: far, addresses: [`${ADDRESSES[family][1]}/${bits}`] },
    );
    const arena = new Arena(ARENA_BYTES);
    const sender = inNamespace(near, () => UdpSocket.open(arena, { family, port: 0, ...senderOptions }));
    const receiver = inNamespace(far, () => UdpSocket.open(arena, { family, port: 0 }));
    const at = arena.allocateAt(65_536);
    fillRun(arena, at, 65_536, 5);
    const to = { address: ip(ADDRESSES[family][1]), port: receiver.port };
    const close = (): void => {
      sender.close();
      receiver.close();
    };
    return { near, far, nearDevice, farDevice, arena, sender, receiver, at, to, [Symbol.dispose]: close };
  }

  const failures = (socket: UdpSocket): string[] =>
    Object.keys(socket.counters).filter((name) => /^(send|receive)-E/.test(name));

  it.each([4, 6] as const)("sends what is too wide for a link in datagrams; IPv%i", (family) => {
    using w = world(family);
    w.near.ip("link", "set", w.nearDevice, "mtu", "1300");
    const other = inNamespace(w.far, () => UdpSocket.open(w.arena, { family, port: 0 }));
    const toOther = { ...w.to, port: other.port };
    const length = 10 * 1452 - 11;
    const run = cut(w.arena, w.at, length, 1452);
    w.sender.push(w.at, length, 1452, w.to);
    w.sender.push(w.at, 5000, 1000, toOther); // narrow enough
    w.sender.flush();
    expectSame(receiveBytes(w.arena, w.receiver, length), run); // the kernel has fragmented them
    expectSame(receiveBytes(w.arena, other, 5000), cut(w.arena, w.at, 5000, 1000));
    expect(w.sender.counters).toMatchObject({ "gso-EMSGSIZE": 1, "send-runs": 2 });
    expect(failures(w.sender)).toEqual([]);
    expect(w.sender.gso).toBe(true); // it is the path's fault, not the socket's

    w.sender.push(w.at, length, 1452, w.to);
    w.sender.push(w.at, 5000, 1000, toOther);
    w.sender.flush();
    expectSame(receiveBytes(w.arena, w.receiver, length), run);
    receiveBytes(w.arena, other, 5000);
    // Not tried again: ten datagrams, and one run for the other.
    expect(w.sender.counters).toMatchObject({ "gso-EMSGSIZE": 1, "send-runs": 2 + 10 + 1 });

    w.near.ip("link", "set", w.nearDevice, "mtu", "1500");
    for (let i = 1; i < UDP_NARROW_RUNS; i++) w.sender.push(w.at, 2, 1, w.to);
    w.sender.flush();
    receiveBytes(w.arena, w.receiver, 2 * (UDP_NARROW_RUNS - 1));
    const before = w.sender.counters["send-runs"]!;
    w.sender.push(w.at, length, 1452, w.to);
    w.sender.flush();
    expectSame(receiveBytes(w.arena, w.receiver, length), run);
    expect(w.sender.counters).toMatchObject({ "gso-EMSGSIZE": 1, "send-runs": before + 1 });
    other.close();
  });

  it("waits for room, then drops and counts: the neighbour doesn't answer", () => {
    using w = world(4, { bufferBytes: 131_072 });
    const mac = /link\/ether (\S+)/.exec(w.far.ip("link", "show", w.farDevice))?.[1] ?? "";
    w.far.ip("link", "set", w.farDevice, "arp", "off");
    // Packets wait for the neighbour's address, and in the sender's buffer as long.
    w.near.setSysctl(`net.ipv4.neigh.${w.nearDevice}.unres_qlen_bytes`, String(16 * 1024 * 1024));
    const answers = ["neigh", "replace", ADDRESSES[4][1], "lladdr", mac, "dev", w.nearDevice];
    expectFullBufferToDrop({ ...w, go: () => w.near.ip(...answers) });
  });

  it("waits no longer than it is told where an event loop has others to serve", () => {
    const tookMs = [undefined, UDP_LOOP_SEND_WAIT_MAX_MS].map((sendWaitMs) => {
      using w = world(4, { bufferBytes: 131_072, ...(sendWaitMs === undefined ? {} : { sendWaitMs }) });
      w.far.ip("link", "set", w.farDevice, "arp", "off"); // nothing leaves: the neighbour does not answer
      w.near.setSysctl(`net.ipv4.neigh.${w.nearDevice}.unres_qlen_bytes`, String(16 * 1024 * 1024));
      const times = Array.from({ length: 10 }, () => {
        for (let i = 0; i < 24; i++) w.sender.push(w.at, 20_000, 1000, w.to);
        const begunMs = performance.now();
        w.sender.flush();
        return performance.now() - begunMs;
      });
      expect(w.sender.counters["send-EAGAIN"]).toBeGreaterThan(0);
      return times.sort((a, b) => a - b)[5]!;
    });
    expect(tookMs[0]).toBeGreaterThan(UDP_SEND_WAIT_MAX_MS - 1);
    expect(tookMs[1]).toBeLessThan(UDP_SEND_WAIT_MAX_MS - 5);
  });

  it("waits for room and loses nothing where the link moves in time", async () => {
    using w = world(4, { bufferBytes: 65_536 });
    // 400 Mbit/s: what waits takes about 3 ms.
    const slow = ["rate", "400mbit", "burst", "70000", "limit", "4000000"];
    await w.near.run("tc", ["qdisc", "add", "dev", w.nearDevice, "root", "tbf", ...slow]);
    const [runs, length] = [12, 20_000];
    for (let i = 0; i < runs; i++) {
      w.sender.push(w.at, length, 1000, w.to);
      w.sender.flush();
    }
    expect(w.sender.counters["send-waits"]).toBeGreaterThan(0);
    expect(failures(w.sender)).toEqual([]);
    expect(receiveBytes(w.arena, w.receiver, runs * length)).toHaveLength(runs * 20);
  });

  it("waits a little for memory that is not the socket's own, then drops and counts (ENOBUFS)", async () => {
    using w = world();
    // The queue of this device takes hardly anything; IP_RECVERR has the kernel tell of it.
    const narrow = ["rate", "8kbit", "burst", "2000", "limit", "3000"];
    await w.near.run("tc", ["qdisc", "add", "dev", w.nearDevice, "root", "tbf", ...narrow]);
    w.arena.words[w.arena.scratchAt / 4] = 1;
    const setsockopt = bindNative("setsockopt", "int", "int", "int", "int", "uintptr_t", "uint32_t");
    expect(setsockopt(w.sender.fd, 0, 11, w.arena.baseAddress + w.arena.scratchAt, 4)).toBe(0);
    const begunMs = performance.now();
    for (let i = 0; i < 10; i++) w.sender.push(w.at, 1000, 1000, w.to);
    w.sender.flush();
    expect(performance.now() - begunMs).toBeGreaterThanOrEqual(20);
    expect(performance.now() - begunMs).toBeLessThan(500);
    expect(w.sender.counters["send-ENOBUFS"]).toBeGreaterThan(0);
    expect(w.sender.counters["send-waits"]).toBeGreaterThan(0);
    expect(w.sender.counters["send-waits"]).toBeLessThanOrEqual(21); // no more often than each millisecond
  });

  it("does with what an ordinary user may have", async () => {
    const script = `
      import { Arena } from ${JSON.stringify(new URL("../../src/io/ffi/arena.ts", import.meta.url).href)};
      import { UdpSocket } from ${JSON.stringify(new URL("../../src/io/ffi/udp-socket.ts", import.meta.url).href)};
      const arena = new Arena(8 << 20);
      process.setgroups([]); process.setgid(65534); process.setuid(65534);
      const { v4 } = UdpSocket.openPair(arena, { port: 0 });
      let said = {};
      try { v4.setMark(7); } catch (error) { said = { code: error.code, cause: error.cause.code }; }
      console.log(JSON.stringify({ counters: v4.counters, gso: v4.gso, said }));`;
    const namespace = lab.namespace(`user${worlds++}`);
    const { stdout } = await namespace.run(process.execPath, ["--input-type=module", "-e", script]);
    expect(JSON.parse(stdout)).toMatchObject({
      counters: { "buffer-EPERM": 1 },
      gso: true,
      said: { code: "NATIVE_UNAVAILABLE", cause: "EPERM" },
    });
  });

  it("leaves no descriptor behind where a port can't be opened", () => {
    using w = world();
    const { port } = w.receiver;
    const descriptors = readdirSync("/proc/self/fd").length;
    for (let i = 0; i < 3; i++) {
      expect(() => inNamespace(w.far, () => UdpSocket.open(w.arena, { family: 4, port }))).toThrow("EADDRINUSE");
      expect(() => inNamespace(w.far, () => UdpSocket.openPair(w.arena, { port }))).toThrow("EADDRINUSE");
    }
    expect(readdirSync("/proc/self/fd").length).toBe(descriptors);
  });

  it("counts what has no way out, by name", () => {
    using w = world();
    const nowhere = { address: ip("192.0.2.1"), port: 9 };
    w.sender.push(w.at, 10_000, 1000, nowhere);
    w.sender.push(w.at, 100, 100, w.to);
    w.sender.flush();
    expect(w.sender.counters).toMatchObject({ "send-ENETUNREACH": 10 });
    expect(w.sender.gso).toBe(true);
    expect(receiveBytes(w.arena, w.receiver, 100)).toHaveLength(1);
  });

  it.runIf(needs("nft"))("counts what a firewall of this machine refuses, by name", () => {
    using w = world();
    w.near.nft(`table inet t {
      chain output {
        type filter hook output priority 0
        udp dport ${w.to.port} meta mark != 7 drop
      }
    }`);
    w.sender.push(w.at, 10_000, 1000, w.to);
    w.sender.flush();
    expect(w.sender.counters).toMatchObject({ "send-EPERM": 10 });
    w.sender.setMark(7); // the mark of its packets lets them through, from now on
    w.sender.push(w.at, 10_000, 1000, w.to);
    w.sender.setMark(0); // what was queued before goes with the old one
    w.sender.push(w.at, 2_000, 1000, w.to);
    w.sender.flush();
    expect(receiveBytes(w.arena, w.receiver, 10_000)).toHaveLength(10);
    expect(w.receiver.receive()).toBe(0);
    expect(w.sender.counters).toMatchObject({ "send-EPERM": 12 });
    const marked = inNamespace(w.near, () => UdpSocket.open(w.arena, { family: 4, port: 0, mark: 7, receiveSlots: 1 }));
    marked.push(w.at, 1000, 1000, w.to);
    marked.flush();
    expect(receiveBytes(w.arena, w.receiver, 1000)).toHaveLength(1);
    marked.close();
  });
});
