import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { UAPI_CLIENTS_MAX, UAPI_REQUEST_MAX_BYTES } from "../../../src/base/limits.ts";
import { UAPI_ERRNO, type UapiChange, type UapiDevice } from "../../../src/peer/tun/uapi-codec.ts";
import { type UapiBackend, UapiServer, type UapiServerOptions } from "../../../src/peer/tun/uapi-server.ts";

const KEY = new Uint8Array(32).fill(7);
const DEVICE: UapiDevice = { privateKey: KEY, listenPort: 51820, fwMark: 0, peers: [] };
const SHOWN = `private_key=${"07".repeat(32)}\nlisten_port=51820\nerrno=0\n\n`;

class Backend implements UapiBackend {
  readonly changes: UapiChange[] = [];
  errno: number = UAPI_ERRNO.OK;
  failure: Error | undefined;
  working = 0;
  mostAtOnce = 0;

  async get(): Promise<UapiDevice> {
    if (this.failure !== undefined) throw this.failure;
    return DEVICE;
  }

  async set(change: UapiChange): Promise<number> {
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.working);
    await new Promise((resolve) => setTimeout(resolve, 10)); // long enough for the next to be there
    this.working--;
    this.changes.push(change);
    return this.errno;
  }
}

let folder = "";
let server: UapiServer | undefined;
let backend = new Backend();
const failures: unknown[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "wirebadge-uapi-"));
  backend = new Backend();
  failures.length = 0;
});

afterEach(async () => {
  await server?.close();
  server = undefined;
  expect(readdirSync(folder).filter((name) => name !== "theirs.sock")).toEqual([]);
  rmSync(folder, { recursive: true });
});

async function open(more: Partial<UapiServerOptions> = {}): Promise<UapiServer> {
  const onFailure = (error: unknown): void => void failures.push(error);
  server = await UapiServer.open({ name: "wg0", backend, readOnly: false, folder, onFailure, ...more });
  return server;
}

/** All that is answered until the server ends it, or until `enough`. */
function talk(text: string | readonly string[], enough?: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = createConnection({ path: join(folder, "wg0.sock") });
    let answer = "";
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => {
      answer += chunk;
      if (enough !== undefined && answer.endsWith(enough)) socket.destroy();
    });
    socket.on("error", () => undefined); // cut by the server: what was answered is what counts
    socket.once("close", () => resolve(answer));
    const parts = typeof text === "string" ? [text] : text;
    const next = (at: number): void => {
      if (at < parts.length) socket.write(parts[at]!, () => setImmediate(() => next(at + 1)));
    };
    socket.once("connect", () => next(0));
  });
}

test("get and set are answered, several on one connection, however they are cut", async () => {
  await open();
  expect(await talk("get=1\n\n", "errno=0\n\n")).toBe(SHOWN);
  const all = "get=1\n\nset=1\nlisten_port=7\n\nset=1\nfwmark=9\n\n";
  expect(await talk(all.split(""), "errno=0\n\n".repeat(3))).toBe(`${SHOWN}errno=0\n\nerrno=0\n\n`);
  expect(await talk(all, "errno=0\n\n".repeat(3))).toBe(`${SHOWN}errno=0\n\nerrno=0\n\n`);
  expect(backend.changes.map(({ listenPort, fwMark }) => listenPort ?? fwMark)).toEqual([7, 9, 7, 9]);
  expect(failures).toEqual([]);
});

test("a client that only looks whether somebody is there is no failure", async () => {
  const { path } = await open();
  for (let count = 0; count < 3; count++) {
    await new Promise<void>((resolve) => {
      const socket = createConnection({ path }, () => socket.destroy());
      socket.once("close", () => resolve());
    });
  }
  expect(await talk("get=1\n\n", "\n\n")).toBe(SHOWN);
  expect(failures).toEqual([]);
});

test("the device's errno is the answer; what is not understood ends the connection and changes nothing", async () => {
  await open();
  backend.errno = UAPI_ERRNO.EADDRINUSE;
  expect(await talk("set=1\nlisten_port=7\n\n", "\n\n")).toBe("errno=-98\n\n");
  backend.changes.length = 0;
  expect(await talk("set=1\nfwmark=1\nlisten_port=x\n\nset=1\nfwmark=2\n\n")).toBe("errno=-22\n\n");
  expect(await talk("hello\n\nget=1\n\n")).toBe("errno=-71\n\n");
  expect(backend.changes).toEqual([]);
});

test("a failure of the device is EIO, and goes to the log", async () => {
  await open();
  backend.failure = new Error("its own");
  expect(await talk("get=1\n\n", "\n\n")).toBe("errno=-5\n\n");
  expect(failures).toEqual([backend.failure]);
});

test("sets of several clients are applied one after the other", async () => {
  await open();
  await Promise.all(Array.from({ length: 5 }, (_, at) => talk(`set=1\nfwmark=${at}\n\n`, "\n\n")));
  expect(backend.changes).toHaveLength(5);
  expect(backend.mostAtOnce).toBe(1);
});

test("read-only: no keys are shown, a set is refused with EPERM and told of", async () => {
  let refused = 0;
  await open({ readOnly: true, onRefusedSet: () => void refused++ });
  expect(await talk("get=1\n\n", "errno=0\n\n")).toBe("listen_port=51820\nerrno=0\n\n");
  expect(await talk("set=1\nfwmark=1\n\nset=1\n\n", "errno=-1\n\nerrno=-1\n\n")).toBe("errno=-1\n\nerrno=-1\n\n");
  expect(await talk("set=1\nfwmark=x\n\n")).toBe("errno=-22\n\n");
  expect([refused, backend.changes.length]).toEqual([2, 0]);
});

test("the socket is its owner's alone, in a folder that is too; closed, it is gone", async () => {
  const path = join(folder, "made");
  const { path: socket } = await open({ folder: path });
  expect(statSync(path).mode & 0o777).toBe(0o700);
  expect(statSync(socket).mode & 0o777).toBe(0o600);
  expect(readdirSync(path)).toEqual(["wg0.sock"]);
  await server?.close();
  expect(readdirSync(path)).toEqual([]);
  rmSync(path, { recursive: true });
});

test("a folder that others may write to is refused, one that they may read is not", async () => {
  chmodSync(folder, 0o777);
  await expect(open()).rejects.toMatchObject({ code: "FORBIDDEN", hint: expect.stringContaining("chmod go-w") });
  chmodSync(folder, 0o755);
  await open();
});

test("a socket that a killed process left is replaced, a living one's is not", async () => {
  const dead = createServer();
  await new Promise<void>((resolve) => dead.listen(join(folder, "dying"), resolve));
  linkSync(join(folder, "dying"), join(folder, "wg0.sock"));
  await new Promise<void>((resolve) => dead.close(() => resolve()));
  await open();
  expect(await talk("get=1\n\n", "\n\n")).toBe(SHOWN);
  const first = server;
  await expect(open()).rejects.toMatchObject({ code: "PORT_TAKEN", message: expect.stringContaining("runs wg0") });
  server = first;
  expect(await talk("get=1\n\n", "\n\n")).toBe(SHOWN);
});

test("what is no socket is left alone, and a name that is no device's is refused", async () => {
  mkdirSync(join(folder, "other"));
  writeFileSync(join(folder, "other", "wg0.sock"), "mine");
  await expect(open({ folder: join(folder, "other") })).rejects.toMatchObject({ code: "PORT_TAKEN" });
  rmSync(join(folder, "other"), { recursive: true });
  for (const name of ["", "../wg0", "a".repeat(16), "wg 0"]) {
    await expect(open({ name })).rejects.toMatchObject({ code: "USAGE" });
  }
});

test("whoever deletes the socket is heard; another's socket in its place stays", async () => {
  let removed = 0;
  const told = new Promise<void>((resolve) => {
    void open({
      onRemoved: () => {
        removed++;
        resolve();
      },
    }).then(({ path }) => {
      writeFileSync(join(folder, "unrelated"), "");
      unlinkSync(join(folder, "unrelated"));
      unlinkSync(path);
    });
  });
  await told;
  const theirs = createServer();
  await new Promise<void>((resolve) => theirs.listen(join(folder, "theirs.sock"), resolve));
  linkSync(join(folder, "theirs.sock"), join(folder, "wg0.sock"));
  await server?.close();
  expect(removed).toBe(1);
  expect(readdirSync(folder).sort()).toEqual(["theirs.sock", "wg0.sock"]);
  unlinkSync(join(folder, "wg0.sock"));
  await new Promise<void>((resolve) => theirs.close(() => resolve()));
});

test("a request is bounded in bytes", async () => {
  await open();
  const chunk = "fwmark=1\n".repeat(100_000);
  const parts = [
    "set=1\n",
    ...Array.from({ length: Math.ceil(UAPI_REQUEST_MAX_BYTES / chunk.length) + 1 }, () => chunk),
  ];
  expect(await talk(parts)).toBe("errno=-7\n\n");
  expect(backend.changes).toEqual([]);
});

test("a request is bounded in time, also one that comes byte by byte, and so is the taking of an answer", async () => {
  await open({ requestMaxMs: 50 });
  expect(await talk("get=1\n")).toBe("");
  const begun = Date.now();
  const slow = createConnection({ path: join(folder, "wg0.sock") });
  slow.on("error", () => undefined); // it is cut while it writes
  const drip = setInterval(() => slow.write("a"), 5);
  await new Promise<void>((resolve) => slow.once("close", () => resolve()));
  clearInterval(drip);
  expect(Date.now() - begun).toBeLessThan(5_000);
  // Asks and never reads: the answers fill the socket's buffers.
  const greedy = createConnection({ path: join(folder, "wg0.sock") });
  greedy.pause();
  greedy.on("error", () => undefined); // as above
  greedy.write("get=1\n\n".repeat(100_000));
  await new Promise<void>((resolve) => greedy.once("close", () => resolve()));
  expect(failures).toEqual([]);
});

test("connections are bounded in number; one that goes makes room", async () => {
  const { path } = await open();
  const sockets: Socket[] = [];
  for (let count = 0; count < UAPI_CLIENTS_MAX; count++) {
    const socket = createConnection({ path });
    sockets.push(socket);
    await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
  }
  expect(await talk("get=1\n\n", "\n\n")).toBe("");
  sockets[0]!.destroy();
  await expect.poll(() => talk("get=1\n\n", "\n\n")).toBe(SHOWN);
  for (const socket of sockets) socket.destroy();
});
