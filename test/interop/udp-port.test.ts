import { spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { describe, expect, onTestFinished, test } from "vitest";
import { type Endpoint, parseAddress } from "../../src/base/address.ts";
import {
  ADDRESSES_REMEMBERED_MAX,
  DATAGRAM_MAX_BYTES,
  UDP_BURST_MESSAGES_MAX,
  UDP_RUN_SEGMENTS_MAX,
} from "../../src/base/limits.ts";
import { DgramUdpPort, ParsedAddresses } from "../../src/io/dgram-udp-port.ts";
import type { PollHandle, StartPoll } from "../../src/io/ffi/readiness.ts";
import { NativeUdpPort } from "../../src/io/native-udp-port.ts";
import { openPacketArena } from "../../src/io/packet-arena.ts";
import { type DatagramReceiver, openUdpPort, type UdpPort } from "../../src/io/udp-port.ts";
import { needs } from "../needs.ts";

type Handle = (from: Endpoint, bytes: Buffer) => void;

const LOOPBACK = { 4: parseAddress("127.0.0.1")!, 6: parseAddress("::1")! } as const;

/** How many datagrams each burst had, beside what is done with each. */
function receiver(handle: Handle = () => undefined, bursts: number[] = []): DatagramReceiver {
  return {
    onDatagram: (from, buffer, offset, length) => {
      bursts[bursts.length - 1]! += 1;
      handle(from, Buffer.from(buffer.buffer, buffer.byteOffset + offset, length));
    },
    onBurst: (give) => {
      bursts.push(0);
      give();
    },
  };
}

const openNative = (port: number, to: DatagramReceiver, startPoll?: StartPoll): NativeUdpPort =>
  NativeUdpPort.open(openPacketArena()!.arena, port, to, startPoll);

const KINDS = {
  dgram: (port: number, to: DatagramReceiver): Promise<UdpPort> => DgramUdpPort.open(port, to),
  native: async (port: number, to: DatagramReceiver): Promise<UdpPort> => openNative(port, to),
} as const;

function sendNow(port: UdpPort, to: Endpoint, bytes: Uint8Array): void {
  port.send(to, bytes, 0, bytes.length);
  port.flush();
}

const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
};

const rest = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const kinds = needs("linux") ? (["dgram", "native"] as const) : (["dgram"] as const);

describe.each(kinds)("a UDP port of the kind %s", (kind) => {
  async function open(handle?: Handle, bursts?: number[], port = 0): Promise<UdpPort> {
    const opened = await KINDS[kind](port, receiver(handle, bursts));
    onTestFinished(() => opened.close());
    expect(opened.kind).toBe(kind);
    return opened;
  }

  test("serves both families on one number, and a source comes back as an endpoint", async () => {
    const got: { from: Endpoint; text: string }[] = [];
    const server = await open((from, bytes) => got.push({ from, text: bytes.toString() }));
    const client = await open();
    for (const family of [4, 6] as const) {
      const bytes = Buffer.from(`--to ${family}--`);
      client.send({ address: LOOPBACK[family], port: server.port }, bytes, 2, bytes.length - 4);
      client.flush();
      await until(() => got.length > 0);
      expect(got.pop()).toEqual({ text: `to ${family}`, from: { address: LOOPBACK[family], port: client.port } });
    }
  });

  test("has its own copy of what it is to send as soon as send returns", async () => {
    const got: string[] = [];
    const server = await open((_from, bytes) => got.push(bytes.toString()));
    const client = await open();
    const bytes = Buffer.from("first");
    client.send({ address: LOOPBACK[4], port: server.port }, bytes, 0, 5);
    bytes.fill(0);
    client.flush();
    await until(() => got.length > 0);
    expect(got).toEqual(["first"]);
  });

  test("says PORT_TAKEN with a hint; what can't be sent is counted, not thrown", async () => {
    const first = await open();
    await expect(open(undefined, undefined, first.port)).rejects.toMatchObject({
      code: "PORT_TAKEN",
      hint: expect.stringContaining("--listen-port"),
    });
    sendNow(first, { address: parseAddress("255.255.255.255")!, port: 9 }, new Uint8Array(100));
    await until(() => first.counters["send-EACCES"] === 1);
  });

  test("gives a burst whole, in order and from whom it came", async () => {
    const got: string[] = [];
    const server = await open((from, bytes) => {
      got.push(`${from.address.w3.toString(16)}:${from.port} ${bytes.toString()}`);
      bytes.fill(0); // as opening in place does
    });
    const clients = [await open(), await open()];
    const expected: string[] = [];
    for (const family of [4, 6] as const) {
      for (let i = 0; i < 200; i++) {
        const client = clients[i % 2]!;
        const bytes = Buffer.from(`${i} ${"x".repeat(i)}`);
        sendNow(client, { address: LOOPBACK[family], port: server.port }, bytes);
        expected.push(`${LOOPBACK[family].w3.toString(16)}:${client.port} ${bytes.toString()}`);
      }
      await until(() => got.length >= expected.length);
    }
    expect(got).toEqual(expected);
  });

  test("may be closed by what it gives, in the middle of a flood, and gives nothing more", async () => {
    let count = 0;
    const other: string[] = [];
    const server = await open(() => {
      if (++count === 100) void server.close();
    });
    const client = await open();
    for (let i = 0; i < 1_000; i++) sendNow(client, { address: LOOPBACK[4], port: server.port }, new Uint8Array(100));
    await until(() => count >= 100);
    await server.close();
    // Its descriptors are the next one's: what comes there is that one's alone.
    const next = await open((_from, bytes) => other.push(bytes.toString()));
    sendNow(client, { address: LOOPBACK[4], port: next.port }, Buffer.from("for the next"));
    sendNow(client, { address: LOOPBACK[6], port: next.port }, Buffer.from("for the next"));
    await until(() => other.length === 2);
    await rest(20);
    expect(other).toEqual(["for the next", "for the next"]);
    expect(count).toBe(100);
  });

  test("loses what it is given once closed, and counts it", async () => {
    const port = await open();
    await port.close();
    sendNow(port, { address: LOOPBACK[4], port: 9 }, new Uint8Array(100));
    expect(port.counters["send-EBADF"]).toBe(1);
  });

  test("keeps a process alive, unless it is told not to", async () => {
    const script = new URL("./udp-port-process.ts", import.meta.url).pathname;
    const run = (how: string) => spawnSync(process.execPath, [script, kind, how], { encoding: "utf8" });
    expect(run("unref").stdout).toBe("open\nends\n");
    expect(run("stay").stdout).toBe("open\nstays\nends\n");
  });

  test("takes a datagram at the limit and counts one above it", async () => {
    const lengths: number[] = [];
    const server = await open((_from, bytes) => lengths.push(bytes.length));
    const client = createSocket("udp4");
    onTestFinished(() => void client.close());
    for (const length of [1, DATAGRAM_MAX_BYTES + 1, DATAGRAM_MAX_BYTES, DATAGRAM_MAX_BYTES + 1, 2]) {
      client.send(new Uint8Array(length), server.port, "127.0.0.1");
    }
    await until(() => lengths.length >= 3);
    expect(lengths).toEqual([1, DATAGRAM_MAX_BYTES, 2]);
    expect(server.counters["receive-too-long"]).toBe(2);
  });
});

describe.runIf(needs("linux"))("the native UDP port", () => {
  test("reads so many messages a turn, and one more in the next", async () => {
    const bursts: number[] = [];
    const server = openNative(0, receiver(undefined, bursts));
    const client = openNative(0, receiver());
    const to = { address: LOOPBACK[4], port: server.port };
    for (let i = 0; i <= UDP_BURST_MESSAGES_MAX; i++) client.send(to, new Uint8Array(100 + i), 0, 100 + i);
    client.flush();
    await until(() => server.counters["datagrams-in"] === UDP_BURST_MESSAGES_MAX + 1);
    expect(bursts).toEqual([UDP_BURST_MESSAGES_MAX, 1]);
    await Promise.all([server.close(), client.close()]);
  });

  test("sends what is made in its places by one call, in runs, and joins them where they arrive", async () => {
    const bursts: number[] = [];
    const got: number[] = [];
    const server = openNative(
      0,
      receiver((_from, bytes) => got.push(bytes[0]!), bursts),
    );
    const client = openNative(0, receiver());
    const to = { address: LOOPBACK[6], port: server.port };
    const { packets } = client;
    for (let i = 0; i < UDP_RUN_SEGMENTS_MAX + 1; i++) {
      const at = packets.placeForPacket() - 16;
      packets.bytes.fill(i, at, at + 1_000);
      client.send(to, packets.bytes, at, 1_000);
    }
    client.flush();
    await until(() => got.length > UDP_RUN_SEGMENTS_MAX);
    expect(got).toEqual(Array.from({ length: UDP_RUN_SEGMENTS_MAX + 1 }, (_, i) => i));
    expect(bursts).toEqual([UDP_RUN_SEGMENTS_MAX + 1]);
    expect(client.counters).toMatchObject({ "send-calls": 1, "send-runs": 2, "datagrams-out": got.length });
    expect(server.counters["receive-messages"]).toBe(2);
    await Promise.all([server.close(), client.close()]);
  });

  test("puts a packet that was made elsewhere, in its memory or not, behind the last datagram", async () => {
    const got: string[] = [];
    const { arena } = openPacketArena()!;
    const client = NativeUdpPort.open(arena, 0, receiver());
    const server = openNative(
      0,
      receiver((_from, bytes) => got.push(bytes.toString())),
    );
    const to = { address: LOOPBACK[4], port: server.port };
    const { packets } = client;
    const inside = arena.bytes.subarray(4_096, 4_200);
    for (const [i, source] of [inside, new Uint8Array(104), inside].entries()) {
      source.set(Buffer.from(`packet ${i}`), 32);
      const at = packets.putPacket(source, 32, 8);
      expect(at - packets.placeForPacket()).toBe(0);
      client.send(to, packets.bytes, at - 16, 24);
    }
    client.flush();
    await until(() => got.length === 3);
    expect(got.map((text) => text.slice(16))).toEqual(["packet 0", "packet 1", "packet 2"]);
    expect(client.counters["send-runs"]).toBe(1);
    await Promise.all([server.close(), client.close()]);
  });

  test("waits a moment and goes on where waiting or reading fails, and begins nothing anew once closed", async () => {
    const events: ((status: number) => void)[] = [];
    let [started, stopped, closed] = [0, 0, 0];
    const startPoll: StartPoll = (_fd, onEvent) => {
      events.push(onEvent);
      const handle: PollHandle = {
        start: () => started++,
        stop: () => stopped++,
        unref: () => undefined,
        close: () => closed++,
      };
      return handle;
    };
    let count = 0;
    const server = openNative(
      0,
      receiver(() => count++),
      startPoll,
    );
    const client = openNative(0, receiver());
    sendNow(client, { address: LOOPBACK[4], port: server.port }, new Uint8Array(100));
    await rest(20);
    expect([count, started, stopped]).toEqual([0, 0, 0]);
    events[0]!(-9);
    await until(() => started === 1);
    expect([count, stopped]).toEqual([1, 1]);
    events[0]!(-9);
    await server.close();
    for (const onEvent of events) onEvent(0);
    await rest(30);
    expect([started, closed, server.counters["receive-EBADF"]]).toEqual([1, events.length, undefined]);
    await client.close();
  });

  test("closes what it had opened where its sockets can't be waited for, and dgram takes over", async () => {
    const failing: StartPoll = () => {
      throw new Error("no such call");
    };
    const taken = openNative(0, receiver());
    const { port } = taken;
    await taken.close();
    expect(() => openNative(port, receiver(), failing)).toThrow(
      expect.objectContaining({ code: "NATIVE_UNAVAILABLE", message: expect.stringContaining("no such call") }),
    );
    const { udp, reason } = await openUdpPort(port, receiver(), openPacketArena()?.arena, failing);
    expect([udp.kind, udp.port, reason]).toEqual(["dgram", port, expect.stringContaining("no such call")]);
    await udp.close();
  });

  test("is the one that is opened where there is memory for it; a taken port is no reason to do without", async () => {
    const { udp, reason } = await openUdpPort(0, receiver(), openPacketArena()?.arena);
    expect([udp.kind, reason]).toEqual(["native", undefined]);
    await expect(openUdpPort(udp.port, receiver(), openPacketArena()?.arena)).rejects.toMatchObject({
      code: "PORT_TAKEN",
    });
    await udp.close();
  });
});

test.runIf(needs("linux"))(
  "in a thread a port is dgram's, and ending the thread with it open ends no more",
  async () => {
    const thread = new Worker(new URL("./udp-port-thread.ts", import.meta.url));
    const [said] = await once(thread, "message");
    expect(said).toEqual({ kind: "dgram", reason: expect.stringContaining("main thread") });
    await thread.terminate();
  },
);

test("without memory for native calls a port is dgram's, and says why", async () => {
  const { udp, reason } = await openUdpPort(0, receiver(), undefined);
  expect([udp.kind, reason]).toEqual(["dgram", "native calls are not available"]);
  await udp.close();
});

test("addresses are remembered up to their limit; one more, and all are forgotten", () => {
  const parsed = new ParsedAddresses();
  for (let i = 0; i < ADDRESSES_REMEMBERED_MAX; i++) parsed.parse(`10.0.${i >> 8}.${i & 255}`);
  expect(parsed.size).toBe(ADDRESSES_REMEMBERED_MAX);
  expect(parsed.parse("10.0.0.1")).toEqual(parseAddress("10.0.0.1"));
  expect(parsed.size).toBe(ADDRESSES_REMEMBERED_MAX);
  expect(parsed.parse("fe80::1%eth0")).toEqual(parseAddress("fe80::1"));
  expect(parsed.size).toBe(1);
  expect(parsed.parse("nonsense")).toBeUndefined();
});
