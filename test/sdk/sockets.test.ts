// net.connect and net.listen of a network, held against Node's own sockets: the same program runs over both.
import { once } from "node:events";
import {
  type AddressInfo,
  connect as connectReal,
  createServer,
  Socket as RealSocket,
  Server,
  type Socket,
  type TcpNetConnectOpts,
} from "node:net";
import { text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { ConnectError } from "../../src/sdk/join.ts";
import type { Network } from "../../src/sdk/network.ts";
import { listen, until } from "../peer/world.ts";
import { Scene } from "./scene.ts";

const POLICY = {
  services: {
    echo: { at: "echo.internal tcp:7", via: ["node:gw"] },
    secret: { at: "secret.internal tcp:80", via: ["node:gw"], discoverable: true },
    closed: { at: "closed.internal tcp:80", via: ["node:gw"] },
  },
  grants: [
    { from: "agent:coder", to: "service:echo" },
    { from: "agent:coder", to: "service:closed" },
    { from: "agent:coder", to: "node:server tcp:any" },
    { from: "agent:coder", to: "10.20.0.0/16 tcp:443" },
  ],
  never: [{ id: "no-metadata", from: "agent:coder", to: "10.20.0.9" }],
  routes: { "10.20.0.0/16": { via: ["node:gw"] } },
};

/** One way to have both ends of a connection. */
interface Way {
  listen(options: { allowHalfOpen?: boolean; pauseOnConnect?: boolean }, taker: (socket: Socket) => void): Server;
  connect(port: number, options?: { allowHalfOpen?: boolean; signal?: AbortSignal; timeout?: number }): Socket;
}

let scene: Scene;
let service: Awaited<ReturnType<typeof listen>>;
let coder: Network;
let server: Network;
const opened: Server[] = [];

beforeAll(async () => {
  service = await listen((socket) => socket.pipe(socket));
  scene = await Scene.start(POLICY);
  const serves = [`echo=127.0.0.1:${service.port}`, `secret=127.0.0.1:${service.port}`, "closed=127.0.0.1:9"];
  await scene.gateway("node:gw", { serves, routes: ["10.20.0.0/16"] });
  server = await scene.join("node:server");
  coder = await scene.join("agent:coder");
  await until(() => coder.can("node:server tcp:80").allowed && server.can("node:gw icmp") !== undefined);
});
afterEach(() => {
  for (const each of opened.splice(0)) each.close();
});
afterAll(async () => {
  await scene.end();
  await service.close();
});

const WAYS: Record<string, Way> = {
  "node:net": {
    listen: (options, taker) => createServer(options, taker).listen(0, "127.0.0.1"),
    connect: (port, options) => connectReal({ host: "127.0.0.1", port, ...options } as TcpNetConnectOpts),
  },
  overlay: {
    listen: (options, taker) => server.listen({ port: 0, ...options }, taker),
    connect: (port, options) => coder.connect({ host: "server", port, ...options }),
  },
};

for (const [name, way] of Object.entries(WAYS)) {
  const serve = async (
    taker: (socket: Socket) => void,
    options: Parameters<Way["listen"]>[0] = {},
  ): Promise<[Server, number]> => {
    const made = way.listen(options, taker);
    opened.push(made);
    await once(made, "listening");
    return [made, (made.address() as AddressInfo).port];
  };
  const portOf = async (...args: Parameters<typeof serve>): Promise<number> => (await serve(...args))[1];

  describe(`over ${name}`, () => {
    test("events come in a socket's order, and what it says of itself follows", async () => {
      const seen: string[] = [];
      const port = await portOf((socket) => socket.end("bye"));
      const socket = way.connect(port);
      expect(socket).toBeInstanceOf(RealSocket);
      expect([socket.connecting, socket.pending, socket.readyState]).toEqual([true, true, "opening"]);
      for (const event of ["connect", "ready", "data", "end", "finish", "close"])
        socket.on(event, (what: unknown) => seen.push(event === "close" ? `close ${what}` : event));
      await once(socket, "connect");
      expect([socket.connecting, socket.pending, socket.readyState]).toEqual([false, false, "open"]);
      expect(socket.remotePort).toBe(port);
      expect(socket.remoteFamily).toMatch(/^IPv[46]$/);
      expect(socket.address()).toMatchObject({ address: socket.localAddress, port: socket.localPort });
      await once(socket, "close");
      expect(seen).toEqual(["connect", "ready", "data", "end", "finish", "close false"]);
      expect([socket.bytesRead, socket.bytesWritten, socket.destroyed, socket.readyState]).toEqual([
        3,
        0,
        true,
        "closed",
      ]);
    });

    test("what is written before it is connected is sent and counted", async () => {
      const port = await portOf(async (socket) => socket.end((await text(socket)).toUpperCase()), {
        allowHalfOpen: true,
      });
      const socket = way.connect(port);
      socket.write("hel");
      socket.write("lo", "latin1");
      expect(socket.bytesWritten).toBe(5);
      socket.end("6f6f", "hex");
      expect(await text(socket)).toBe("HELLOOO");
      expect(socket.bytesWritten).toBe(7);
    });

    test("half-open: an end each way is its own with allowHalfOpen, and closes both without", async () => {
      const port = await portOf((socket) => socket.on("end", () => setTimeout(() => socket.end("late"), 20)).resume(), {
        allowHalfOpen: true,
      });
      const asking = way.connect(port);
      asking.end("question");
      expect(await text(asking)).toBe("late");
      const closing = await portOf((socket) => socket.end("x"));
      const kept = way.connect(closing, { allowHalfOpen: true });
      expect(await text(kept)).toBe("x");
      expect([kept.writable, kept.destroyed]).toEqual([true, false]);
      kept.end();
      await once(kept, "close");
      const plain = way.connect(closing);
      plain.resume();
      await once(plain, "close");
      expect(plain.writableFinished).toBe(true);
    });

    test("a timeout is told and ends nothing; traffic puts it off", async () => {
      const port = await portOf((socket) => socket.on("error", () => undefined).pipe(socket));
      const socket = way.connect(port, { timeout: 60 });
      await once(socket, "timeout");
      expect(socket.destroyed).toBe(false);
      let timeouts = 0;
      socket.setTimeout(200, () => timeouts++);
      for (let i = 0; i < 6; i++) {
        socket.write("x");
        await delay(50);
      }
      expect(timeouts).toBe(0);
      socket.setTimeout(0);
      socket.destroy();
      await once(socket, "close");
    });

    test("a signal ends it before and after it is connected", async () => {
      const port = await portOf((socket) => socket.on("error", () => undefined));
      for (const connected of [false, true]) {
        const controller = new AbortController();
        const socket = way.connect(port, { signal: controller.signal });
        const closed = new Promise((resolve) => socket.on("close", resolve));
        socket.on("error", (error) => expect(error).toMatchObject({ code: "ABORT_ERR", name: "AbortError" }));
        if (connected) await once(socket, "connect");
        controller.abort();
        expect(await closed).toBe(true);
      }
      const aborted = way.connect(port, { signal: AbortSignal.abort() });
      const [error] = await once(aborted, "error");
      expect(error).toMatchObject({ code: "ABORT_ERR" });
    });

    test("a reset is ECONNRESET at the far end, by destroy with data and by resetAndDestroy", async () => {
      const errors: unknown[] = [];
      const port = await portOf((socket) => socket.on("error", (error) => errors.push(error)).resume());
      const socket = way.connect(port);
      await once(socket, "connect");
      socket.write("x");
      await delay(20);
      socket.resetAndDestroy();
      await once(socket, "close");
      await until(() => errors.length === 1);
      expect(errors[0]).toMatchObject({ code: "ECONNRESET", syscall: "read" });
    });

    test("writing after the end, and on a destroyed socket, is an error with a code", async () => {
      const port = await portOf((socket) => socket.resume());
      const socket = way.connect(port);
      await once(socket, "connect");
      socket.end();
      const failed = once(socket, "error");
      socket.write("late");
      expect((await failed)[0]).toMatchObject({ code: "ERR_STREAM_WRITE_AFTER_END" });
      const gone = way.connect(port);
      gone.destroy();
      const callback = await new Promise((resolve) => gone.write("x", resolve));
      expect(callback).toMatchObject({ code: "ERR_STREAM_DESTROYED" });
    });

    test("what nobody reads holds the sender back", async () => {
      const port = await portOf(() => undefined, { pauseOnConnect: true });
      const socket = way.connect(port);
      await once(socket, "connect");
      const chunk = Buffer.alloc(1_000_000);
      let sent = 0;
      while (sent < 100 && socket.write(chunk)) sent++;
      await delay(50);
      expect(socket.writableNeedDrain).toBe(true);
      expect(socket.writableLength).toBeGreaterThan(0);
      socket.destroy();
    });

    test("a server counts, drops beyond maxConnections, and closes when its sockets have", async () => {
      const [made, port] = await serve((socket) => socket.on("error", () => undefined).resume());
      expect(made).toBeInstanceOf(Server);
      expect(made.listening).toBe(true);
      made.maxConnections = 1;
      const socket = way.connect(port);
      await once(made, "connection");
      const dropped = once(made, "drop");
      const second = way.connect(port).on("error", () => undefined);
      second.resume();
      expect((await dropped)[0]).toMatchObject({ localPort: port });
      await once(second, "close");
      expect(await new Promise((resolve) => made.getConnections((_, count) => resolve(count)))).toBe(1);
      let closed = false;
      made.close(() => {
        closed = true;
      });
      expect(made.listening).toBe(false);
      await delay(20);
      expect(closed).toBe(false);
      socket.end();
      await until(() => closed);
      const [error] = await once(way.connect(port), "error");
      expect(error).toMatchObject({ code: "ECONNREFUSED", syscall: "connect", port });
      await expect(new Promise((_, reject) => made.close(reject))).rejects.toMatchObject({
        code: "ERR_SERVER_NOT_RUNNING",
      });
    });

    test("a port that is taken is EADDRINUSE", async () => {
      const [made, port] = await serve(() => undefined);
      const again = way === WAYS["overlay"] ? server.listen(port) : createServer().listen(port, "127.0.0.1");
      expect((await once(again, "error"))[0]).toMatchObject({ code: "EADDRINUSE", syscall: "listen" });
      expect(made.listening).toBe(true);
    });
  });
}

describe("over the network alone", () => {
  test("a server knows its caller, and so does a caller its server", async () => {
    const callers: unknown[] = [];
    const made = server.listen(8080, (socket) => {
      callers.push(server.whois(socket));
      socket.end();
    });
    opened.push(made);
    const socket = coder.connect(8080, "node:server");
    socket.resume();
    await once(socket, "connect");
    await until(() => callers.length === 1);
    expect(callers[0]).toMatchObject({ identity: "agent:coder", session: coder.session });
    expect(coder.whois(socket.remoteAddress!)).toMatchObject({ identity: "node:server" });
    expect(server.whois(new RealSocket())).toBeUndefined();
  });

  test("a service behind a gateway, by its name and its only port", async () => {
    const socket = coder.connect({ host: "service:echo" });
    socket.end("hello");
    expect(await text(socket)).toBe("hello");
    expect(socket.remotePort).toBe(7);
  });

  test("a denial has code, id, reason and what would allow it", async () => {
    const [error] = (await once(coder.connect(80, "secret"), "error")) as [ConnectError];
    expect(error).toBeInstanceOf(ConnectError);
    expect(error).toMatchObject({ code: "EACCES", syscall: "connect", host: "secret", port: 80, reason: "NO_GRANT" });
    expect(error.errno).toBeLessThan(0);
    expect(error.denialId).toMatch(/^d_/);
    expect(error.hint).toBe('an admin can grant { "from": "agent:coder", "to": "service:secret" }');
    expect(error.message).toContain(error.hint);
    expect(coder.denials().map(({ id }) => id)).toContain(error.denialId);
  });

  test("what it may not know has the words of what doesn't exist; an address says what can be granted", async () => {
    const errorFor = async (host: string): Promise<ConnectError> => (await once(coder.connect(22, host), "error"))[0];
    const strip = ({ message }: Error, host: string) => message.replaceAll(host, "X").replace(/d_\w+/, "d");
    expect(strip(await errorFor("gw"), "gw")).toBe(strip(await errorFor("nobody"), "nobody"));
    expect((await errorFor("10.20.0.5")).hint).toContain('"to": "10.20.0.5 tcp:22"');
    expect((await errorFor("db.example.com")).hint).toContain('"to": "host:db.example.com tcp:22"');
    const never = (await once(coder.connect(443, "10.20.0.9"), "error"))[0] as ConnectError;
    expect(never).toMatchObject({ code: "EACCES", reason: "NEVER", rule: "no-metadata" });
    expect(never.hint).toContain("never");
  });

  test("what the gateway is refused is refused here: ECONNREFUSED, not a connection", async () => {
    const [error] = await once(coder.connect(80, "closed"), "error");
    expect(error).toMatchObject({ code: "ECONNREFUSED" });
    expect(error.denialId).toBeUndefined();
  });

  test("a policy that closes it ends an open socket, with EACCES", async () => {
    const socket = coder.connect({ host: "echo", port: 7 });
    await once(socket, "connect");
    const failed = once(socket, "error");
    await scene.network.setPolicy({ ...POLICY, grants: POLICY.grants.slice(1) });
    expect((await failed)[0]).toMatchObject({ code: "EACCES" });
    await scene.network.setPolicy(POLICY);
  });

  test("a socket that is made first connects by its own connect(), once", async () => {
    const socket = coder.socket();
    expect([socket.connecting, socket.pending]).toEqual([false, true]);
    const connected = once(socket, "connect");
    expect(socket.connect(7, "echo")).toBe(socket);
    expect(socket.connecting).toBe(true);
    await connected;
    expect(() => socket.connect(7, "echo")).toThrow(expect.objectContaining({ code: "EISCONN" }));
    socket.end("hello");
    expect(await text(socket)).toBe("hello");
    const [error] = await once(coder.socket().connect({ host: "secret", port: 80 }), "error");
    expect(error).toMatchObject({ code: "EACCES", host: "secret" });
  });

  test("mistakes are told at once", () => {
    expect(() => coder.connect({ host: "" })).toThrow(expect.objectContaining({ code: "USAGE" }));
    expect(() => coder.connect({ host: "echo", port: 70_000 })).toThrow(/70000/);
  });
});
