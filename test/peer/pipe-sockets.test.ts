import { createHash } from "node:crypto";
import { connect, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { OverlaySocket } from "../../src/peer/overlay-socket.ts";
import { type PipeResult, SocketPipe } from "../../src/peer/pipe-sockets.ts";
import { connectLocal, whenConnected } from "../../src/peer/real-network.ts";
import { type FakeConnection, fakePair, TestTurns } from "./fake-stack.ts";
import { address, listen, until } from "./world.ts";

const A = { address: address("fd00::a"), port: 40_000 };
const B = { address: address("fd00::b"), port: 80 };
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

interface Joined {
  /** The program at the real socket's other end. */
  readonly program: Socket;
  /** The overlay's far end. */
  readonly far: FakeConnection;
  readonly turns: TestTurns;
  readonly pipe: SocketPipe;
  /** The pipe's own end of the real connection. */
  readonly near: Socket;
  readonly results: PipeResult[];
}

/** Both kinds of real socket: dialled into one buffer (gateway), accepted (SOCKS5, forwards). */
async function joined(kind: "dialled" | "accepted", capacityBytes?: number): Promise<Joined> {
  const turns = new TestTurns();
  const [near, far] = fakePair(turns, A, B, capacityBytes);
  const results: PipeResult[] = [];
  let accepted: Socket | undefined;
  const server = await listen((socket) => {
    accepted = socket;
  });
  cleanups.push(() => server.close());
  const done = (result: PipeResult): void => void results.push(result);
  if (kind === "dialled") {
    const local = connectLocal({ host: "127.0.0.1", port: server.port });
    await whenConnected(local, new AbortController().signal);
    await until(() => accepted !== undefined);
    return {
      program: accepted!,
      far,
      turns,
      pipe: new SocketPipe(local, near, turns, done),
      near: local.socket,
      results,
    };
  }
  const program = connect({ port: server.port, host: "127.0.0.1", allowHalfOpen: true });
  program.on("error", () => undefined);
  cleanups.push(() => program.destroy());
  await until(() => accepted !== undefined);
  accepted!.pause();
  const local = { socket: accepted!, reader: undefined };
  return { program, far, turns, pipe: new SocketPipe(local, near, turns, done), near: accepted!, results };
}

function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 8)) & 255;
  return bytes;
}

const hash = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

for (const kind of ["dialled", "accepted"] as const) {
  test(`${kind}: 4 MB each way at once arrive byte-exact and counted, closed in order`, async () => {
    const { program, far, turns, results } = await joined(kind, 32_768);
    const sent = pattern(4_000_000);
    const overlay = new OverlaySocket({ turns, tcp: { connection: far, closed: undefined }, allowHalfOpen: true });
    const atProgram: Buffer[] = [];
    program.on("data", (chunk) => atProgram.push(chunk));
    program.end(sent);
    overlay.end(sent);
    const atOverlay = Buffer.concat(await overlay.toArray());
    await until(() => results.length === 1);
    expect(hash(atOverlay)).toBe(hash(sent));
    expect(hash(Buffer.concat(atProgram))).toBe(hash(sent));
    expect(results).toEqual([{ end: "closed", bytesToOverlay: 4_000_000, bytesFromOverlay: 4_000_000 }]);
  });

  test(`${kind}: an end in one direction leaves the other open`, async () => {
    const { program, far, turns, results } = await joined(kind);
    program.end("question");
    await until(() => far.readableBytes === 8);
    turns.turn((nowMs) => far.read(nowMs, 100));
    await until(() => far.remoteEnded);
    turns.turn((nowMs) => far.write(nowMs, Buffer.from("answer")));
    let got = "";
    program.on("data", (chunk) => {
      got += chunk;
    });
    await until(() => got === "answer");
    expect(results).toEqual([]);
    far.end();
    await until(() => results.length === 1);
    expect(results[0]!.end).toBe("closed");
  });

  test(`${kind}: the overlay's end reaches the program, which may answer afterwards`, async () => {
    const { program, far, turns, results } = await joined(kind);
    turns.turn((nowMs) => far.write(nowMs, Buffer.from("question")));
    far.end();
    let ended = false;
    program.on("end", () => {
      ended = true;
    });
    program.resume();
    await until(() => ended);
    program.end("answer");
    await until(() => far.readableBytes === 6);
    turns.turn((nowMs) => far.read(nowMs, 100));
    await until(() => results.length === 1);
    expect(results).toEqual([{ end: "closed", bytesToOverlay: 6, bytesFromOverlay: 8 }]);
  });

  test(`${kind}: a program that doesn't read holds the overlay back`, async () => {
    const { program, far, turns, pipe, near } = await joined(kind);
    program.pause();
    let taken = 0;
    const chunk = new Uint8Array(65_536);
    for (let i = 0; i < 400; i++) {
      taken += turns.turn((nowMs) => far.write(nowMs, chunk));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(near.writableLength).toBeLessThanOrEqual(65_536 + 262_144); // beyond the kernel's own buffers
    expect(near.writableLength).toBeGreaterThan(0);
    expect(taken - pipe.bytesFromOverlay).toBeLessThanOrEqual(65_536);
    pipe.cut();
  });

  test(`${kind}: an overlay that doesn't read holds the program back, byte-exact when it reads again`, async () => {
    const { program, far, turns, results } = await joined(kind, 1_000);
    const sent = pattern(300_000);
    program.end(sent);
    await until(() => far.readableBytes === 1_000);
    const got: Uint8Array[] = [];
    await until(() => {
      const bytes = turns.turn((nowMs) => far.read(nowMs, 777));
      if (bytes !== undefined) got.push(bytes);
      return far.remoteEnded;
    });
    expect(hash(Buffer.concat(got))).toBe(hash(sent));
    far.end();
    await until(() => results.length === 1);
  });

  test(`${kind}: a reset from the overlay resets the program, one from the program resets the overlay`, async () => {
    const first = await joined(kind);
    let code: string | undefined;
    first.program.on("error", (error: NodeJS.ErrnoException) => {
      code = error.code;
    });
    first.program.resume();
    first.far.abort();
    await until(() => first.program.destroyed);
    expect(code).toBe("ECONNRESET");
    expect(first.results[0]!.end).toBe("reset");
    const second = await joined(kind);
    second.program.resetAndDestroy();
    await until(() => second.far.closedBy !== undefined);
    expect(second.far.closedBy).toBe("reset");
    expect(second.results[0]!.end).toBe("local-reset");
  });

  test(`${kind}: a cut ends both sides at once, and only once`, async () => {
    const { program, far, turns, pipe, results } = await joined(kind);
    program.resume();
    turns.turn((nowMs) => far.write(nowMs, Buffer.from("before")));
    await until(() => pipe.bytesFromOverlay === 6);
    pipe.cut();
    pipe.cut();
    expect(far.closedBy).toBe("reset");
    await until(() => program.destroyed);
    expect(results).toEqual([{ end: "cut", bytesToOverlay: 0, bytesFromOverlay: 6 }]);
  });
}

test("a connection that was closed before the pipe was made ends it", async () => {
  const turns = new TestTurns();
  const [near, far] = fakePair(turns, A, B);
  far.abort();
  const server = await listen(() => undefined);
  cleanups.push(() => server.close());
  const local = await whenConnected(
    connectLocal({ host: "127.0.0.1", port: server.port }),
    new AbortController().signal,
  );
  const results: PipeResult[] = [];
  new SocketPipe(local, near, turns, (result) => results.push(result), "reset");
  await until(() => results.length === 1);
  expect(results[0]!.end).toBe("reset");
});
