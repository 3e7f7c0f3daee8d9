// Who reads a socket, and when no longer: its descriptor may be another file's as soon as it is closed. The socket and
// what drains it are stand-ins, so that the order of events is the test's.
import { EventEmitter } from "node:events";
import { expect, test } from "vitest";
import { type Endpoint, parseAddress } from "../../src/base/address.ts";
import { UdpInlet } from "../../src/io/udp-inlet.ts";

const FROM: Endpoint = { address: parseAddress("10.0.0.1")!, port: 1_000 };
const INFO = { address: "10.0.0.1", port: 1_000, family: "IPv4", size: 1 };
const FD = 77;

type Handler = (from: Endpoint, bytes: Uint8Array) => void;

function scene(handle: unknown, handler: Handler = () => undefined) {
  const socket = new EventEmitter();
  Object.defineProperty(socket, Symbol("none"), { value: null });
  Object.defineProperty(socket, Symbol("other"), { value: "text" });
  Object.defineProperty(socket, Symbol("bare"), { value: {} });
  Object.defineProperty(socket, Symbol("state"), { value: { handle } });
  const batches: number[] = [];
  const reads: number[] = [];
  const drain = {
    tooLong: 0,
    read(fd: number, pass: Handler): number {
      reads.push(fd);
      const count = batches.shift() ?? 0;
      for (let i = 0; i < count; i++) pass(FROM, new Uint8Array(1));
      return count;
    },
  };
  const got: number[] = [];
  const inlet = new UdpInlet({
    socket: socket as never,
    drain: drain as never,
    handler: (from, bytes) => {
      got.push(bytes.length);
      handler(from, bytes);
    },
    endpointOf: () => FROM,
    count: () => undefined,
  });
  return { socket, inlet, batches, reads, got, arrive: () => socket.emit("message", Buffer.alloc(1), INFO) };
}

const handleWith = (calls: string[]) => ({
  fd: FD,
  recvStart: () => calls.push("start"),
  recvStop: () => calls.push("stop"),
});
const rounds = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

test("sparse datagrams come one by one, with a look behind every fourth", () => {
  const calls: string[] = [];
  const { arrive, reads, got } = scene(handleWith(calls));
  for (let i = 0; i < 9; i++) arrive();
  expect(got).toHaveLength(9);
  expect(reads).toEqual([FD, FD, FD]);
  expect(calls).toEqual([]);
});

test("dense ones stop dgram until four rounds found nothing; fewer than eight behind the first do not", async () => {
  const calls: string[] = [];
  const { arrive, batches, reads, got } = scene(handleWith(calls));
  batches.push(7);
  arrive();
  expect(calls).toEqual([]);
  batches.push(8, 5, 0, 0, 0, 3);
  arrive();
  expect(calls).toEqual(["stop"]);
  await rounds(20);
  expect(calls).toEqual(["stop", "start"]);
  expect(got).toHaveLength(2 + 7 + 8 + 5 + 3);
  expect(reads).toHaveLength(2 + 5 + 4); // until it had found nothing four times running
});

test("closed by what handles a datagram, its descriptor is neither read nor switched again", async () => {
  for (const closedAt of [1, 2]) {
    const calls: string[] = [];
    let seen = 0;
    const s = scene(handleWith(calls), () => {
      if (++seen === closedAt) s.inlet.close();
    });
    s.batches.push(20);
    s.arrive();
    await rounds(10);
    expect({ reads: s.reads.length, calls }).toEqual({ reads: closedAt - 1, calls: [] });
  }
});

test("closed between two batches, or in the middle of one, as well", async () => {
  for (const closes of ["between", "within"] as const) {
    const calls: string[] = [];
    let seen = 0;
    const s = scene(handleWith(calls), () => {
      if (closes === "within" && ++seen === 15) s.inlet.close();
    });
    s.batches.push(10, 10, 10);
    s.arrive();
    if (closes === "between") s.inlet.close();
    await rounds(10);
    expect({ reads: s.reads.length, calls }).toEqual({ reads: closes === "between" ? 1 : 2, calls: ["stop"] });
  }
});

const does = (): number => 0;

test.each([
  ["nothing", undefined],
  ["null", null],
  ["a number", 5],
  ["no descriptor", { recvStart: does, recvStop: does }],
  ["no recvStart", { fd: FD, recvStop: does }],
  ["no recvStop", { fd: FD, recvStart: does }],
  ["a recvStop that is none", { fd: FD, recvStart: does, recvStop: 1 }],
  ["a recvStart that is none", { fd: FD, recvStart: 1, recvStop: does }],
  ["a descriptor that is a text", { fd: "5", recvStart: does, recvStop: does }],
  ["a closed descriptor", { fd: -1, recvStart: does, recvStop: does }],
])("where dgram has %s in place of its handle, its events carry all", (_, handle) => {
  const { arrive, batches, reads, got } = scene(handle);
  batches.push(20);
  arrive();
  arrive();
  expect({ got: got.length, reads: reads.length }).toEqual({ got: 2, reads: 0 });
});
