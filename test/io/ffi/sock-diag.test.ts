import { connect, createServer, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { addressTo16, type Endpoint, parseAddress } from "../../../src/base/address.ts";
import { writeU16, writeU32Le } from "../../../src/base/bytes.ts";
import { decodeOwner, SockDiag } from "../../../src/io/ffi/sock-diag.ts";
import { needs } from "../../needs.ts";

const CLIENT: Endpoint = { address: parseAddress("127.0.0.1")!, port: 40_000 };
const SERVER: Endpoint = { address: parseAddress("127.0.0.1")!, port: 1_080 };
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

function answer(change: (bytes: Uint8Array) => void = () => undefined): Uint8Array {
  const bytes = new Uint8Array(100);
  writeU32Le(bytes, 0, 100);
  bytes[4] = 20;
  writeU32Le(bytes, 8, 7);
  bytes[16] = 2;
  bytes[17] = 1;
  writeU16(bytes, 20, CLIENT.port);
  writeU16(bytes, 22, SERVER.port);
  bytes.set([127, 0, 0, 1], 24);
  bytes.set([127, 0, 0, 1], 40);
  writeU32Le(bytes, 80, 1000);
  writeU32Le(bytes, 84, 4711);
  change(bytes);
  return bytes;
}

test("an answer about the very socket gives its owner", () => {
  expect(decodeOwner(answer(), 7, CLIENT, SERVER)).toBe(1000);
  const mapped = answer((bytes) => {
    bytes[16] = 10;
    bytes.set(addressTo16(CLIENT.address), 24);
    bytes.set(addressTo16(SERVER.address), 40);
  });
  expect(decodeOwner(mapped, 7, CLIENT, SERVER)).toBe(1000);
});

test.each([
  [
    "a closed client (state 6, no inode)",
    (b: Uint8Array) => {
      b[17] = 6;
      writeU32Le(b, 80, 0);
      writeU32Le(b, 84, 0);
    },
  ],
  ["a live state without inode", (b: Uint8Array) => writeU32Le(b, 84, 0)],
  [
    "a listener",
    (b: Uint8Array) => {
      b[17] = 10;
    },
  ],
  ["another client port", (b: Uint8Array) => writeU16(b, 20, CLIENT.port + 1)],
  ["another server port", (b: Uint8Array) => writeU16(b, 22, SERVER.port + 1)],
  [
    "another client address",
    (b: Uint8Array) => {
      b[27] = 2;
    },
  ],
  [
    "another server address",
    (b: Uint8Array) => {
      b[43] = 2;
    },
  ],
  [
    "an error message",
    (b: Uint8Array) => {
      b[4] = 2;
    },
  ],
  ["another query's answer", (b: Uint8Array) => writeU32Le(b, 8, 8)],
  [
    "an unknown family",
    (b: Uint8Array) => {
      b[16] = 1;
    },
  ],
  ["a short length", (b: Uint8Array) => writeU32Le(b, 0, 40)],
])("%s is no owner", (_name, change) => {
  expect(decodeOwner(answer(change), 7, CLIENT, SERVER)).toBeUndefined();
});

test("a truncated answer is no owner", () => {
  for (let length = 0; length < 88; length++) {
    expect(decodeOwner(answer().subarray(0, length), 7, CLIENT, SERVER)).toBeUndefined();
  }
});

function endpoint(address: string | undefined, port: number | undefined): Endpoint {
  return { address: parseAddress(address!)!, port: port! };
}

async function connected(host: string): Promise<{ client: Endpoint; server: Endpoint; socket: Socket }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const bound = server.address();
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const socket = connect((bound as { port: number }).port, host);
  const peer = await accepted;
  cleanups.push(() => {
    socket.destroy();
    peer.destroy();
    server.close();
  });
  return {
    client: endpoint(peer.remoteAddress, peer.remotePort),
    server: endpoint(peer.localAddress, peer.localPort),
    socket,
  };
}

test.runIf(needs("linux", "ipv6")).each(["127.0.0.1", "::1"])(
  "the kernel names our own uid for a client on %s",
  async (host) => {
    const diag = SockDiag.open();
    cleanups.push(() => diag.close());
    const { client, server, socket } = await connected(host);
    for (let i = 0; i < 100; i++) expect(diag.ownerOf(client, server)).toBe(process.getuid!());
    expect(diag.ownerOf({ ...client, port: client.port ^ 1 }, server)).toBeUndefined();
    expect(diag.ownerOf(server, client)).toBe(process.getuid!()); // the accepted end is a socket of ours as well
    socket.destroy();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(diag.ownerOf(client, server)).toBeUndefined();
  },
);
