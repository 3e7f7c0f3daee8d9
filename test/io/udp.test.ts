import { expect, test } from "vitest";
import { type Endpoint, parseAddress } from "../../src/base/address.ts";
import { DgramUdpPort } from "../../src/io/udp.ts";

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
