// The TUN device against the kernel: the contract that its twin keeps too, and what only a kernel has: super-packets
// from its own TCP and UDP, names that are taken, a device that goes away.
import { readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Arena } from "../../src/io/ffi/arena.ts";
import { POLLERR, POLLIN, Poller } from "../../src/io/ffi/poller.ts";
import { TUN_ARENA_BYTES, TunDevice, type TunOptions } from "../../src/io/ffi/tun-device.ts";
import { UdpSocket } from "../../src/io/ffi/udp-socket.ts";
import { PROTOCOL_UDP } from "../../src/wire/packet.ts";
import { writeUdpHeader } from "../../src/wire/udp.ts";
import { VNET_HEADER_BYTES } from "../../src/wire/vnet-header.ts";
import { inNamespace } from "../inside-namespace.ts";
import { FAR_ADDRESS, KERNEL_ADDRESS, type TunWorld, tunContract, UDP_PORT } from "../io/tun-contract.ts";
import { cut, expectSame, fillRun, receiveBytes } from "../io/udp-socket-contract.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { ip, packet, withChecksum } from "../wire/packets.ts";

const ARENA_BYTES = 12 * 1024 * 1024;
const DEVICE = "wbtest0";
const GSO_UDP_L4 = 5;
const MTU_BYTES = 1420;

function openTun(namespace: Namespace, arena: Arena, address: string, options: TunOptions = {}): TunDevice {
  const device = inNamespace(namespace, () => TunDevice.open(arena, DEVICE, options));
  namespace.addAddress(DEVICE, `${address}/24`);
  namespace.ip("link", "set", DEVICE, "mtu", String(MTU_BYTES), "up");
  return device;
}

describe.runIf(needs("netns", "tun"))("a TUN device", () => {
  let lab: Lab;
  let worlds = 0;
  beforeAll(() => {
    lab = new Lab();
  });
  afterAll(() => lab.close());

  function world(options: TunOptions): TunWorld & { readonly socket: UdpSocket; readonly namespace: Namespace } {
    const namespace = lab.namespace(`tun${worlds++}`);
    const arena = new Arena(ARENA_BYTES);
    const device = openTun(namespace, arena, KERNEL_ADDRESS, options);
    const socket = inNamespace(namespace, () => UdpSocket.open(arena, { family: 4, port: UDP_PORT }));
    const at = arena.allocateAt(65_536);
    return {
      arena,
      device,
      socket,
      namespace,
      kernelSends: (payload) => {
        arena.bytes.set(payload, at);
        socket.push(at, payload.length, payload.length, { address: ip(FAR_ADDRESS), port: UDP_PORT });
        socket.flush();
      },
      kernelReceives: () => {
        if (socket.receive() < 1) return undefined;
        const from = socket.messageAt(0);
        return arena.bytes.slice(from, from + socket.messageBytes(0));
      },
      setUp: (isUp) => namespace.ip("link", "set", DEVICE, isUp ? "up" : "down"),
      [Symbol.dispose]: () => {
        device.close();
        socket.close();
      },
    };
  }

  tunContract("with offloads", () => world({}));
  tunContract("without offloads", () => world({ offloads: false }));
  tunContract("without a header from the kernel", () => world({ vnetHeader: false }));

  it("says what it may be given", () => {
    using all = world({});
    expect(all.device.offloads.tso).toBe(true); // USO since Linux 6.2
    using none = world({ offloads: false });
    expect(none.device.offloads).toEqual({ tso: false, uso: false });
    using plain = world({ vnetHeader: false });
    expect(plain.device.offloads).toEqual({ tso: false, uso: false });
  });

  it("is given UDP runs whole where it takes them, and cut where not", () => {
    for (const offloads of [true, false]) {
      using w = world({ offloads });
      const at = w.arena.allocateAt(2 * 65_536);
      fillRun(w.arena, at, 20_500, 1);
      w.socket.push(at, 20_500, 1000, { address: ip(FAR_ADDRESS), port: UDP_PORT });
      w.socket.flush();
      const sizes: number[] = [];
      for (let into = at + 65_536; ; ) {
        const bytes = w.device.read(into, 65_536);
        if (bytes === 0) break;
        if (w.arena.bytes[into + VNET_HEADER_BYTES]! >>> 4 !== 4) continue;
        sizes.push(bytes);
        if (!w.device.offloads.uso) continue;
        const { bytes: all } = w.arena;
        expect([all[into + 1], all[into + 4]! | (all[into + 5]! << 8)]).toEqual([GSO_UDP_L4, 1000]);
        const body = into + VNET_HEADER_BYTES + 28;
        expect(
          Buffer.compare(w.arena.bytes.subarray(body, body + 20_500), w.arena.bytes.subarray(at, at + 20_500)),
        ).toBe(0);
      }
      const whole = VNET_HEADER_BYTES + 28 + 20_500;
      expect(sizes).toEqual(w.device.offloads.uso ? [whole] : [...new Array<number>(20).fill(1038), 538]);
    }
  });

  it("gives the kernel a UDP run whole", () => {
    using w = world({});
    const other = lab.namespace(`tun${worlds++}`);
    const far = openTun(other, w.arena, FAR_ADDRESS);
    const sender = inNamespace(other, () => UdpSocket.open(w.arena, { family: 4, port: 0 }));
    const at = w.arena.allocateAt(2 * 65_536);
    fillRun(w.arena, at, 43 * 1300 + 7, 1);
    sender.push(at, 43 * 1300 + 7, 1300, { address: ip(KERNEL_ADDRESS), port: UDP_PORT });
    sender.flush();
    let moved = 0;
    for (;;) {
      const bytes = far.read(at + 65_536, 65_536);
      if (bytes <= 0) break;
      if (w.device.write(at + 65_536, bytes) === bytes) moved++;
    }
    expect(moved).toBeGreaterThan(0);
    expectSame(receiveBytes(w.arena, w.socket, 43 * 1300 + 7), cut(w.arena, at, 43 * 1300 + 7, 1300));
    far.close();
    sender.close();
  });

  it.each([true, false])("joins the TCP of two kernels; with offloads: %s", async (offloads) => {
    const bytes = 8 * 1024 * 1024;
    const [near, far] = [lab.namespace(`tcp${worlds++}`), lab.namespace(`tcp${worlds++}`)];
    const arena = new Arena(1024 * 1024);
    const devices = [
      openTun(near, arena, KERNEL_ADDRESS, { offloads }),
      openTun(far, arena, FAR_ADDRESS, { offloads }),
    ];
    const hash = `const hash = require("node:crypto").createHash("sha256");`;
    const listen = `${hash} require("node:net").createServer((socket) => {
      socket.on("data", (part) => hash.update(part));
      socket.on("end", () => { console.log(hash.digest("hex")); socket.end(); process.exit(0); });
    }).listen(7001);`;
    const send = `${hash} const bytes = require("node:crypto").randomBytes(${bytes});
      console.log(hash.update(bytes).digest("hex"));
      const dial = () => {
        const socket = require("node:net").connect(7001, "${FAR_ADDRESS}");
        socket.on("error", () => setTimeout(dial, 50));
        socket.on("connect", () => socket.end(bytes));
      };
      dial();`;
    const options = { timeoutMs: 60_000 };
    let done = false;
    const ends = Promise.all([
      far.run(process.execPath, ["-e", listen], options),
      near.run(process.execPath, ["-e", send], options),
    ]).finally(() => {
      done = true;
    });
    const at = arena.allocateAt(70_000);
    const apart = arena.allocateAt(140_000);
    const offsets = new Int32Array(64);
    const lengths = new Int32Array(64);
    const poller = new Poller(
      arena,
      devices.map(({ fd }) => fd),
    );
    let longest = 0;
    let count = 0;
    const move = (from: TunDevice, to: TunDevice): void => {
      const length = from.read(at, 66_000);
      if (length <= 0) return;
      longest = Math.max(longest, length);
      if (count++ % 2 === 0 || length < 200) {
        to.write(at, length);
        return;
      }
      // In pieces of a third each, that do not lie together.
      const third = Math.floor(length / 3);
      for (let i = 0; i < 3; i++) {
        lengths[i] = i < 2 ? third : length - 2 * third;
        offsets[i] = apart + (2 - i) * 40_000;
        arena.bytes.copyWithin(offsets[i]!, at + i * third, at + i * third + lengths[i]!);
      }
      expect(to.writev(offsets, lengths, 3)).toBe(length);
    };
    while (!done) {
      if (poller.wait(5) > 0) {
        if ((poller.events(0) & POLLIN) !== 0) move(devices[0]!, devices[1]!);
        if ((poller.events(1) & POLLIN) !== 0) move(devices[1]!, devices[0]!);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    const [received, sent] = await ends;
    expect(received.stdout).toBe(sent.stdout);
    expect(sent.stdout).toHaveLength(65);
    if (offloads) expect(longest).toBeGreaterThan(10 * MTU_BYTES);
    else expect(longest).toBe(VNET_HEADER_BYTES + MTU_BYTES);
    for (const device of devices) device.close();
  });

  it("sources that can't be answered are passed over and counted", () => {
    using w = world({});
    const at = w.arena.allocateAt(4000);
    const send = (packet: Uint8Array): void => {
      w.arena.bytes.fill(0, at, at + VNET_HEADER_BYTES);
      w.arena.bytes.set(packet, at + VNET_HEADER_BYTES);
      expect(w.device.write(at, VNET_HEADER_BYTES + packet.length)).toBe(VNET_HEADER_BYTES + packet.length);
    };
    const fromPort = (source: string, destination: string, port: number): Uint8Array => {
      const udp = new Uint8Array(12);
      writeUdpHeader(udp, 0, port, UDP_PORT, udp.length);
      return packet(source, destination, PROTOCOL_UDP, withChecksum(source, destination, PROTOCOL_UDP, udp, 6));
    };
    send(fromPort(FAR_ADDRESS, KERNEL_ADDRESS, 0));
    send(fromPort(FAR_ADDRESS, KERNEL_ADDRESS, 99));
    const counts: number[] = [];
    for (const endMs = performance.now() + 2_000; counts.length < 2 && performance.now() < endMs; ) {
      const count = w.socket.receive();
      for (let i = 0; i < count; i++) counts.push(w.socket.messageBytes(i), w.socket.segmentBytes(i));
    }
    expect(counts).toEqual([0, 0, 4, 4]);
    expect(w.socket.counters).toMatchObject({ "receive-bad-source": 1 });
    w.namespace.addAddress(DEVICE, "fd77::1/64");
    const socket = inNamespace(w.namespace, () => UdpSocket.open(w.arena, { family: 6, port: UDP_PORT }));
    send(fromPort("fd77::2", "fd77::1", 99));
    expect(receiveBytes(w.arena, socket, 4)[0]!.from).toEqual({ address: ip("fd77::2"), port: 99 });
    const mapped = fromPort("fd77::2", "fd77::1", 98);
    mapped.set([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1], 8);
    mapped.set(withChecksum("192.0.2.1", "fd77::1", PROTOCOL_UDP, mapped.slice(40), 6), 40);
    send(mapped);
    send(fromPort("fd77::2", "fd77::1", 97));
    expect(receiveBytes(w.arena, socket, 4)[0]!.from.port).toBe(97);
    expect(socket.counters).toMatchObject({ "receive-bad-source": 1, "receive-messages": 3 });
    socket.close();
  });

  it("tells that the device was taken away: POLLERR, EBADFD", () => {
    using w = world({});
    const poller = new Poller(w.arena, [w.device.fd]);
    const at = w.arena.allocateAt(70_000);
    while (w.device.read(at, 70_000) > 0);
    expect(poller.wait(0)).toBe(0);
    w.namespace.ip("link", "del", DEVICE);
    expect(poller.wait(0)).toBe(1);
    expect(poller.events(0) & POLLERR).toBe(POLLERR);
    expect(w.device.read(at, 70_000)).toBe(-77);
    expect(w.device.write(at, 100)).toBe(-77);
  });

  it("says why it can't be opened", () => {
    using w = world({});
    const open = (name: string): unknown => {
      try {
        inNamespace(w.namespace, () => TunDevice.open(w.arena, name)).close();
        return undefined;
      } catch (error) {
        return error;
      }
    };
    const free = w.arena.freeBytes;
    const descriptors = readdirSync("/proc/self/fd").length;
    expect(open(DEVICE)).toMatchObject({
      code: "CONFLICT",
      message: expect.stringContaining("in use by another program"),
      cause: { code: "EBUSY" },
    });
    expect(open("lo")).toMatchObject({ code: "CONFLICT", cause: { code: "EINVAL" } });
    for (const name of ["", "a-name-of-16-byt", "a\0b"]) expect(open(name)).toMatchObject({ code: "CONFIG_INVALID" });
    expect(w.arena.freeBytes).toBe(free); // failed attempts take nothing
    expect(readdirSync("/proc/self/fd").length).toBe(descriptors);
    w.device.close();
    expect(open(DEVICE)).toBeUndefined(); // the device went with its descriptor
    expect(free - w.arena.freeBytes).toBeLessThanOrEqual(TUN_ARENA_BYTES);
  });

  it("takes a device that is there and free, and lets the kernel choose a number", () => {
    using w = world({});
    w.namespace.ip("tuntap", "add", "dev", "kept0", "mode", "tun");
    const kept = inNamespace(w.namespace, () => TunDevice.open(w.arena, "kept0"));
    expect([kept.name, kept.offloads.tso]).toEqual(["kept0", true]);
    kept.close();
    const numbered = [0, 1].map(() => inNamespace(w.namespace, () => TunDevice.open(w.arena, "wb%d")));
    expect(numbered.map(({ name }) => name)).toEqual(["wb0", "wb1"]);
    for (const device of numbered) device.close();
  });

  it("names the choice that needs no rights, where there are none", async () => {
    const script = `
      import { Arena } from ${JSON.stringify(new URL("../../src/io/ffi/arena.ts", import.meta.url).href)};
      import { TunDevice } from ${JSON.stringify(new URL("../../src/io/ffi/tun-device.ts", import.meta.url).href)};
      const arena = new Arena(65536);
      process.setgroups?.([]); process.setgid?.(65534); process.setuid?.(65534);
      try { TunDevice.open(arena, "wbtest9"); } catch (error) {
        console.log(JSON.stringify({ code: error.code, hint: error.hint, cause: error.cause.code }));
      }`;
    const namespace = lab.namespace(`tun${worlds++}`);
    const { stdout } = await namespace.run(process.execPath, ["--input-type=module", "-e", script]);
    const said = JSON.parse(stdout) as Record<string, string>;
    expect(said).toMatchObject({ code: "NATIVE_UNAVAILABLE", hint: expect.stringContaining("leave out --tun") });
    expect(["EPERM", "EACCES"]).toContain(said["cause"]);
  });
});
