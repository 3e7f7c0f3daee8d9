import { expect, test } from "vitest";
import { type Endpoint, parseAddress } from "../../src/base/address.ts";
import { ADDRESSES_REMEMBERED_MAX, DATAGRAM_MAX_BYTES } from "../../src/base/limits.ts";
import { DRAIN_BATCH, UdpDrain } from "../../src/io/ffi/udp-drain.ts";
import { DgramUdpPort, ParsedAddresses } from "../../src/io/udp.ts";
import { needs } from "../needs.ts";

function inbox(): {
  handler: (from: Endpoint, bytes: Uint8Array) => void;
  next: () => Promise<{ from: Endpoint; text: string }>;
} {
  const waiting: ((item: { from: Endpoint; text: string }) => void)[] = [];
  const items: { from: Endpoint; text: string }[] = [];
  return {
    handler: (from, bytes) => {
      const item = { from, text: Buffer.from(bytes).toString() };
      const waiter = waiting.shift();
      if (waiter === undefined) items.push(item);
      else waiter(item);
    },
    next: () => new Promise((resolve) => (items.length > 0 ? resolve(items.shift()!) : waiting.push(resolve))),
  };
}

test("one port number serves both families, and the source comes back as an endpoint", async () => {
  const box = inbox();
  const server = await DgramUdpPort.open(0, box.handler);
  const client = await DgramUdpPort.open(0, () => undefined);
  for (const text of ["127.0.0.1", "::1"]) {
    const bytes = Buffer.from(`--to ${text}--`);
    client.send({ address: parseAddress(text)!, port: server.port }, bytes, 2, bytes.length - 4);
    const got = await box.next();
    expect(got.text).toBe(`to ${text}`);
    expect(got.from).toEqual({ address: parseAddress(text), port: client.port });
  }
  await Promise.all([server.close(), client.close()]);
});

test("the buffer may be overwritten as soon as send returns", async () => {
  const box = inbox();
  const server = await DgramUdpPort.open(0, box.handler);
  const client = await DgramUdpPort.open(0, () => undefined);
  const bytes = Buffer.from("first");
  client.send({ address: parseAddress("127.0.0.1")!, port: server.port }, bytes, 0, 5);
  bytes.fill(0);
  expect((await box.next()).text).toBe("first");
  await Promise.all([server.close(), client.close()]);
});

test("a taken port is PORT_TAKEN with a hint, and what can't be sent is counted, not thrown", async () => {
  const first = await DgramUdpPort.open(0, () => undefined);
  await expect(DgramUdpPort.open(first.port, () => undefined)).rejects.toMatchObject({
    code: "PORT_TAKEN",
    hint: expect.stringContaining("--listen-port"),
  });
  first.send({ address: parseAddress("127.0.0.1")!, port: 9 }, new Uint8Array(70_000), 0, 70_000);
  await new Promise((resolve) => setImmediate(resolve));
  expect(Object.keys(first.counters).some((name) => name.startsWith("send-"))).toBe(true);
  await first.close();
});

test.each([true, false])("a burst arrives whole, in order and from whom it came; drained: %s", async (drains) => {
  const got: string[] = [];
  const server = await DgramUdpPort.open(
    0,
    (from, bytes) => {
      got.push(`${from.address.w3.toString(16)}:${from.port} ${Buffer.from(bytes).toString()}`);
      bytes.fill(0); // as opening in place does
    },
    drains,
  );
  const clients = [await DgramUdpPort.open(0, () => undefined), await DgramUdpPort.open(0, () => undefined)];
  const expected: string[] = [];
  for (const [text, w3] of [
    ["127.0.0.1", "7f000001"],
    ["::1", "1"],
  ] as const) {
    for (let i = 0; i < 3 * DRAIN_BATCH; i++) {
      const client = clients[i % 2]!;
      const bytes = Buffer.from(`${i} ${"x".repeat(i)}`);
      client.send({ address: parseAddress(text)!, port: server.port }, bytes, 0, bytes.length);
      expected.push(`${w3}:${client.port} ${bytes.toString()}`);
    }
    while (got.length < expected.length) await new Promise((resolve) => setImmediate(resolve));
  }
  expect(got).toEqual(expected);
  const isThere = UdpDrain.open() !== undefined;
  if (drains && isThere) expect(server.counters["receive-drained"]).toBeGreaterThan(DRAIN_BATCH);
  else expect(server.counters["receive-drained"]).toBeUndefined();
  await Promise.all([server, ...clients].map((port) => port.close()));
});

test.runIf(needs("linux"))("a flood is read in batches; after it each datagram wakes the loop again", async () => {
  let count = 0;
  const server = await DgramUdpPort.open(0, () => void count++);
  const client = await DgramUdpPort.open(0, () => undefined);
  const to = { address: parseAddress("127.0.0.1")!, port: server.port };
  const send = (datagrams: number): void => {
    for (let i = 0; i < datagrams; i++) client.send(to, new Uint8Array(100), 0, 100);
  };
  const arrived = async (total: number): Promise<void> => {
    while (count < total) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  for (let round = 1; round <= 3; round++) {
    const drainedBefore = server.counters["receive-drained"] ?? 0;
    send(500);
    await arrived(round * 502 - 2);
    expect(server.counters["receive-drained"]! - drainedBefore).toBeGreaterThan(400);
    await new Promise((resolve) => setTimeout(resolve, 20)); // nothing waits any more
    const drained = server.counters["receive-drained"];
    for (let one = 1; one <= 2; one++) {
      send(1);
      await arrived(round * 502 - 2 + one);
    }
    expect(server.counters["receive-drained"]).toBe(drained);
  }
  await Promise.all([server.close(), client.close()]);
});

test("a port may be closed by what it is given, in the middle of a flood", async () => {
  let count = 0;
  let closed: Promise<void> | undefined;
  const server = await DgramUdpPort.open(0, () => {
    if (++count === 100) closed = server.close();
  });
  const client = await DgramUdpPort.open(0, () => undefined);
  const to = { address: parseAddress("127.0.0.1")!, port: server.port };
  for (let i = 0; i < 1_000; i++) client.send(to, new Uint8Array(100), 0, 100);
  while (closed === undefined) await new Promise((resolve) => setImmediate(resolve));
  await closed;
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(count).toBeLessThanOrEqual(100 + DRAIN_BATCH);
  await client.close();
});

test.each([true, false])(
  "a datagram over the limit is counted, one at the limit passes; drained: %s",
  async (drains) => {
    const lengths: number[] = [];
    const server = await DgramUdpPort.open(0, (_from, bytes) => lengths.push(bytes.length), drains);
    const client = await DgramUdpPort.open(0, () => undefined);
    const to = { address: parseAddress("127.0.0.1")!, port: server.port };
    const bytes = new Uint8Array(DATAGRAM_MAX_BYTES + 1);
    for (const length of [1, DATAGRAM_MAX_BYTES + 1, DATAGRAM_MAX_BYTES, DATAGRAM_MAX_BYTES + 1, 2]) {
      client.send(to, bytes, 0, length);
    }
    while (lengths.length < 3) await new Promise((resolve) => setImmediate(resolve));
    expect(lengths).toEqual([1, DATAGRAM_MAX_BYTES, 2]);
    expect(server.counters["receive-too-long"]).toBe(2);
    await Promise.all([server.close(), client.close()]);
  },
);

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
