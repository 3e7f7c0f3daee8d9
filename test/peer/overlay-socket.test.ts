import { once } from "node:events";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { expect, test } from "vitest";
import { OverlaySocket } from "../../src/peer/overlay-socket.ts";
import { type FakeConnection, fakePair, TestTurns } from "./fake-stack.ts";
import { address, until } from "./world.ts";

const A = { address: address("fd00::a"), port: 40_000 };
const B = { address: address("fd00::b"), port: 80 };

function overlaySocket(connection: FakeConnection, turns: TestTurns): OverlaySocket {
  return new OverlaySocket({ turns, tcp: { connection, closed: undefined }, allowHalfOpen: true });
}

function pair(capacityBytes?: number): [OverlaySocket, FakeConnection, TestTurns] {
  const turns = new TestTurns();
  const [client, server] = fakePair(turns, A, B, capacityBytes);
  return [overlaySocket(client, turns), server, turns];
}

function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 8)) & 255;
  return bytes;
}

test("a megabyte each way arrives byte-exact through buffers of 4 KiB, with both ends closed in order", async () => {
  const turns = new TestTurns();
  const [client, server] = fakePair(turns, A, B, 4096);
  const a = overlaySocket(client, turns);
  const b = overlaySocket(server, turns);
  const sent = pattern(1_000_000);
  const collect = async (socket: OverlaySocket): Promise<Buffer> => Buffer.concat(await socket.toArray());
  const [atA, atB] = await Promise.all([
    collect(a),
    collect(b),
    pipeline(Readable.from([sent.subarray(0, 500_000), sent.subarray(500_000)]), a, { end: true }),
    pipeline(Readable.from([sent]), b, { end: true }),
  ]);
  expect(atA.equals(sent)).toBe(true);
  expect(atB.equals(sent)).toBe(true);
  expect(a.bytesRead).toBe(1_000_000);
  expect(a.bytesWritten).toBe(1_000_000);
  await until(() => client.closedBy === "closed");
});

test("a reader that doesn't read holds the sender back: no more than the buffers is taken", async () => {
  const [socket, far, turns] = pair(8_192);
  socket.read(0); // wanted once, never taken
  let taken = 0;
  const chunk = new Uint8Array(1_024);
  for (let i = 0; i < 200; i++) {
    taken += turns.turn((nowMs) => far.write(nowMs, chunk));
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(taken).toBeLessThanOrEqual(8_192 + 2 * socket.readableHighWaterMark);
  socket.destroy();
});

test("write says when the far end doesn't read, and drain when there is room again", async () => {
  const [socket, far, turns] = pair(8_192);
  expect(socket.write(new Uint8Array(100_000))).toBe(false);
  await new Promise((resolve) => setImmediate(resolve));
  expect(far.readableBytes).toBe(8_192);
  const drained = once(socket, "drain");
  const timer = setInterval(() => turns.turn((nowMs) => far.read(nowMs, 4_096)), 0);
  await drained;
  clearInterval(timer);
  expect(socket.bytesWritten).toBe(100_000);
  socket.destroy();
});

test("end sends FIN and reading goes on", async () => {
  const [socket, far, turns] = pair();
  socket.end("question");
  await until(() => far.readableBytes === 8);
  turns.turn((nowMs) => far.read(nowMs, 100));
  expect(far.remoteEnded).toBe(true);
  turns.turn((nowMs) => far.write(nowMs, Buffer.from("answer")));
  const [answer] = await once(socket, "data");
  expect(String(answer)).toBe("answer");
  expect(socket.destroyed).toBe(false);
  far.end();
  await once(socket, "close");
});

test("resetAndDestroy is a reset", async () => {
  const [socket, far] = pair();
  socket.resetAndDestroy();
  expect(far.closedBy).toBe("reset");
});

test("a timeout is told of a socket that is open, and not of one that was destroyed", async () => {
  const told: string[] = [];
  const [open] = pair();
  const [gone] = pair();
  open.setTimeout(5, () => told.push("open"));
  gone.setTimeout(5, () => told.push("gone"));
  gone.destroy();
  await once(open, "timeout");
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(told).toEqual(["open"]);
  open.destroy();
});

test('a listener by once() for "connect" is answered although it is connected already: TLS waits for it', async () => {
  const [socket] = pair();
  await new Promise<void>((resolve) => socket.once("connect", resolve));
  socket.destroy();
});

test("destroy is close(2): an end, but a reset where data is left unread", async () => {
  const [socket, far] = pair();
  socket.destroy();
  await until(() => far.remoteEnded);
  expect(far.closedBy).toBeUndefined();
  const [unread, farther, turns] = pair();
  turns.turn((nowMs) => farther.write(nowMs, new Uint8Array(10)));
  unread.destroy();
  await until(() => farther.closedBy !== undefined);
  expect(farther.closedBy).toBe("reset");
});

test("destroy after the end is none: what was accepted is delivered", async () => {
  const [socket, far, turns] = pair(16);
  socket.end("0123456789abcdef");
  await once(socket, "finish");
  socket.destroy();
  await once(socket, "close");
  expect(far.closedBy).toBeUndefined();
  expect(Buffer.from(turns.turn((nowMs) => far.read(nowMs, 100))!).toString()).toBe("0123456789abcdef");
  turns.turn((nowMs) => far.write(nowMs, Buffer.from("for nobody")));
  await until(() => far.closedBy === "reset"); // as a kernel answers data for a reader that has gone
});

test.each([
  ["reset", "ECONNRESET"],
  ["timeout", "ETIMEDOUT"],
  ["unreachable", "EHOSTUNREACH"],
  ["prohibited", "EACCES"],
  ["refused", "ECONNREFUSED"],
] as const)("%s becomes an error with code %s, for a pending write as well", async (reason, code) => {
  const [socket, far] = pair(4);
  const failed = new Promise((resolve) => socket.write("longer than the buffer", resolve));
  const error = once(socket, "error");
  far.peer.close(reason);
  expect((await error)[0]).toMatchObject({ code });
  expect(await failed).toMatchObject({ code });
  expect(socket.destroyed).toBe(true);
});

test("what arrived before an orderly close is still read", async () => {
  const [socket, far, turns] = pair();
  turns.turn((nowMs) => far.write(nowMs, Buffer.from("last words")));
  far.end();
  socket.end();
  far.peer.end();
  expect(Buffer.concat(await socket.toArray()).toString()).toBe("last words");
});

test("a listener that throws does not throw into the stack", async () => {
  const [socket, far, turns] = pair();
  let inTurn: boolean | undefined;
  socket.on("data", () => {
    inTurn = turns.inTurn;
  });
  turns.turn((nowMs) => far.write(nowMs, Buffer.from("x")));
  await until(() => inTurn !== undefined);
  expect(inTurn).toBe(false);
  socket.destroy();
});

test("detach gives the connection away whole, and only before it was used", async () => {
  const [socket, far, turns] = pair();
  turns.turn((nowMs) => far.write(nowMs, Buffer.from("early")));
  await new Promise((resolve) => setImmediate(resolve));
  const { connection, closed } = socket.detach();
  expect(closed).toBeUndefined();
  expect(far.closedBy).toBeUndefined();
  expect(Buffer.from(turns.turn((nowMs) => connection.read(nowMs, 100))!).toString()).toBe("early");
  const [used] = pair();
  used.write("x");
  expect(() => used.detach()).toThrow("unused");
});
