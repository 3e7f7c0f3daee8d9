// Client libraries as their users write them, over the network by the hook that each has: to services behind a gateway
// and servers on the overlay; allowed, and denied with the reason.

import { once } from "node:events";
import { createServer as createHttp } from "node:http";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import axios, { type AxiosError } from "axios";
import { Redis } from "ioredis";
import mysql from "mysql2";
import mysqlPromised from "mysql2/promise";
import pg from "pg";
import { Client as SshClient, Server as SshServer, utils } from "ssh2";
import { request } from "undici";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import type { Network } from "../../src/sdk/network.ts";
import { needs } from "../needs.ts";
import { until } from "../peer/world.ts";
import { type RealPostgres, startPostgres } from "./real-postgres.ts";
import { Scene } from "./scene.ts";

const SERVED = ["web", "redis", "mysql", "ssh", "denied"] as const;
const grants = SERVED.filter((name) => name !== "denied").map((name) => ({
  from: "agent:coder",
  to: `service:${name}`,
}));
const POLICY = {
  services: Object.fromEntries(
    SERVED.map((name) => [name, { at: `${name}.internal tcp:80`, via: ["node:gw"], discoverable: true }]),
  ),
  grants: [...grants, { from: "agent:coder", to: "node:server tcp:any" }],
};
const DENIED = {
  code: "EACCES",
  denialId: expect.stringMatching(/^d_/),
  hint: expect.stringContaining("service:denied"),
};

let scene: Scene;
let net: Network;
let server: Network;
const servers: { close(): unknown }[] = [];

async function portOf(made: Pick<Server, "listen" | "address" | "close"> & NodeJS.EventEmitter): Promise<number> {
  servers.push(made);
  await new Promise<void>((resolve) => made.listen(0, "127.0.0.1", resolve));
  return (made.address() as AddressInfo).port;
}

/** As much of Redis as a client asks of it before and after GET. */
function answerRedis(socket: Socket): void {
  socket.on("error", () => undefined);
  socket.on("data", (bytes) => {
    for (const [, command] of bytes.toString().matchAll(/\*\d+\r\n\$\d+\r\n(\w+)\r\n/g)) {
      if (command?.toUpperCase() === "GET") socket.write("$5\r\nvalue\r\n");
      else if (command?.toUpperCase() === "INFO") socket.write("$21\r\nredis_version:7.0.0\r\n\r\n");
      else socket.write("+OK\r\n");
    }
  });
}

const COLUMN = {
  catalog: "def",
  schema: "test",
  table: "t",
  orgTable: "t",
  characterSet: 33,
  columnLength: 384,
  columnType: 253,
  flags: 0,
  decimals: 0,
};

interface ServerSide {
  writeTextResult(rows: object[], columns: object[]): void;
  _resetSequenceId(): void;
}

function answerMysql(): NodeJS.EventEmitter & Pick<Server, "listen" | "address" | "close"> {
  const made = mysql.createServer((accepted) => {
    const connection = accepted as typeof accepted & ServerSide;
    connection.serverHandshake({
      protocolVersion: 10,
      serverVersion: "wirebadge test",
      connectionId: 1,
      statusFlags: 2,
      characterSet: 8,
      capabilityFlags: 0xffffff,
      authCallback: (_params: unknown, callback: (error: null) => void) => {
        callback(null);
        setImmediate(() => connection._resetSequenceId()); // each command begins anew; this server forgets to
      },
    } as never);
    connection.on("query", () => {
      connection.writeTextResult([{ one: "1" }], [{ ...COLUMN, name: "one", orgName: "one" }]);
      setImmediate(() => connection._resetSequenceId());
    });
    connection.on("error", () => undefined);
  }) as unknown as { _server: Server };
  return made._server;
}

function answerSsh(): SshServer {
  const { private: hostKey } = utils.generateKeyPairSync("ed25519");
  return new SshServer({ hostKeys: [hostKey] }, (client) => {
    client.on("authentication", (context) => context.accept());
    client.on("error", () => undefined);
    client.on("session", (accept) =>
      accept().on("exec", (acceptExec, _reject, { command }) => {
        const channel = acceptExec();
        channel.write(`ran ${command}`);
        channel.exit(0);
        channel.end();
      }),
    );
  });
}

beforeAll(async () => {
  const web = createHttp((incoming, response) => response.end(`web ${incoming.url}`));
  new WebSocketServer({ server: web }).on("connection", (socket) => socket.on("message", (data) => socket.send(data)));
  const ports = {
    web: await portOf(web),
    redis: await portOf(createServer(answerRedis)),
    mysql: await portOf(answerMysql()),
    ssh: await portOf(answerSsh() as unknown as Server),
  };
  scene = await Scene.start(POLICY);
  const serves = SERVED.map((name) => `${name}=127.0.0.1:${name === "denied" ? ports.web : ports[name]}`);
  await scene.gateway("node:gw", { serves });
  server = await scene.join("node:server");
  net = await scene.join("agent:coder");
});
afterAll(async () => {
  await scene.end();
  for (const each of servers) each.close();
});

test("axios, by the agents", async () => {
  const client = axios.create({ httpAgent: net.httpAgent, httpsAgent: net.httpsAgent, proxy: false });
  expect((await client.get("http://web/a")).data).toBe("web /a");
  const error = (await client.get("http://denied/").catch((failure: unknown) => failure)) as AxiosError;
  expect(error.cause).toMatchObject(DENIED);
});

test("undici, by the dispatcher", async () => {
  const { dispatcher } = net;
  expect(await (await request("http://web/u", { dispatcher })).body.text()).toBe("web /u");
  await expect(request("http://denied/", { dispatcher })).rejects.toMatchObject(DENIED);
});

test("ws, by the agent: to a service, and to a server on the overlay that knows its caller", async () => {
  const socket = new WebSocket("ws://web/", { agent: net.httpAgent });
  await once(socket, "open");
  socket.send("hello");
  expect(String((await once(socket, "message"))[0])).toBe("hello");
  socket.close();
  const http = createHttp();
  new WebSocketServer({ server: http }).on("connection", (each, { socket: from }) => {
    each.send(`hello ${server.whois(from)?.identity}`);
  });
  await once(server.listen(9000, http), "listening");
  const greeted = new WebSocket("ws://server:9000/", { agent: net.httpAgent });
  expect(String((await once(greeted, "message"))[0])).toBe("hello agent:coder");
  greeted.close();
  const [error] = await once(new WebSocket("ws://denied/", { agent: net.httpAgent }), "error");
  expect(error).toMatchObject(DENIED);
});

test("ioredis, by a Connector", async () => {
  const connectorTo = (host: string) =>
    class {
      firstError: Error | undefined;
      #socket: Socket | undefined;
      check = (): boolean => true;
      connect = async (): Promise<Socket> => (this.#socket = net.connect({ host, port: 80 }));
      disconnect = (): void => void this.#socket?.end();
    };
  const redis = new Redis({ Connector: connectorTo("redis") as never, lazyConnect: true });
  expect(await redis.get("key")).toBe("value");
  redis.disconnect();
  const denied = new Redis({ Connector: connectorTo("denied") as never, lazyConnect: true, retryStrategy: () => null });
  const failed = once(denied, "error");
  await expect(denied.connect()).rejects.toThrow();
  expect((await failed)[0]).toMatchObject(DENIED);
});

test("mysql2, by its stream", async () => {
  const connection = await mysqlPromised.createConnection({ user: "agent", stream: () => net.connect(80, "mysql") });
  const [rows] = await connection.query("select 1 as one");
  expect(rows).toEqual([{ one: "1" }]);
  await connection.end();
  const denied = mysqlPromised.createConnection({ user: "agent", stream: () => net.connect(80, "denied") });
  await expect(denied).rejects.toMatchObject({ code: "EACCES", message: expect.stringContaining("d_") });
});

test("ssh2, by its sock", async () => {
  const client = new SshClient();
  client.connect({ sock: net.connect(80, "ssh"), username: "agent", password: "any" });
  await once(client, "ready");
  const channel = await new Promise<NodeJS.ReadableStream>((resolve, reject) =>
    client.exec("date", (error, stream) => (error === undefined ? resolve(stream) : reject(error))),
  );
  const [said] = await once(channel, "data");
  expect(String(said)).toBe("ran date");
  client.end();
  const denied = new SshClient();
  const failed = once(denied, "error");
  denied.connect({ sock: net.connect(80, "denied"), username: "agent", password: "any" });
  expect((await failed)[0]).toMatchObject(DENIED);
});

describe.runIf(needs("postgres", "initdb"))("pg", () => {
  let postgres: RealPostgres;
  beforeAll(async () => {
    postgres = await startPostgres();
    const services = { ...POLICY.services, db: { at: "db.internal tcp:5432", via: ["node:db"] } };
    const all = [...POLICY.grants, { from: "agent:coder", to: "service:db" }];
    await scene.network.setPolicy({ ...POLICY, services, grants: all });
    await scene.gateway("node:db", { serves: [`db=127.0.0.1:${postgres.port}`] });
    await until(() => net.can("service:db").allowed);
  });
  afterAll(() => postgres.end());

  test("pg, by its stream: a pool, 1 MB each way, ten at once, a failing query", async () => {
    const pool = new pg.Pool({ host: "db", user: "agent", database: "postgres", stream: () => net.socket() });
    const large = "x".repeat(1_000_000);
    const { rows } = await pool.query("select $1::text as back", [large]);
    expect(rows[0].back).toBe(large);
    const all = await Promise.all(Array.from({ length: 10 }, (_, i) => pool.query("select $1::int as n", [i])));
    expect(all.map((each) => each.rows[0].n)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    await expect(pool.query("select 1/0")).rejects.toMatchObject({ code: "22012" });
    await pool.end();
  });

  test("pg denied", async () => {
    const client = new pg.Client({ host: "denied", port: 80, user: "agent", stream: () => net.socket() });
    await expect(client.connect()).rejects.toMatchObject(DENIED);
  });
});
