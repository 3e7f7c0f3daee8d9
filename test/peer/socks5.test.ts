import { connect, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { OwnerCheck } from "../../src/peer/owner.ts";
import { type Socks5Options, Socks5Server } from "../../src/peer/socks5.ts";
import { address, CODER, GW_ADDRESS, listen, STAGING_ADDRESS, until, World } from "./world.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

const ME = new OwnerCheck("proc", 1, () => 1);

async function socks(world: World, change: Partial<Socks5Options> = {}): Promise<Socks5Server> {
  const server = await Socks5Server.open({
    at: { address: address("127.0.0.1"), port: 0 },
    dialer: world.dialer(),
    turns: world.turns,
    owner: ME,
    onRefused: () => undefined,
    ...change,
  });
  cleanups.push(() => server.close());
  return server;
}

class Client {
  readonly socket: Socket;
  bytes = Buffer.alloc(0);
  ended = false;
  closed = false;

  constructor(server: Socks5Server) {
    const at = server.at;
    this.socket = "path" in at ? connect(at.path) : connect(at.port, "127.0.0.1");
    this.socket.on("data", (chunk) => {
      this.bytes = Buffer.concat([this.bytes, chunk]);
    });
    this.socket.on("error", () => undefined);
    this.socket.on("end", () => {
      this.ended = true;
    });
    this.socket.on("close", () => {
      this.closed = true;
    });
    cleanups.push(() => this.socket.destroy());
  }

  send(...bytes: (number | string)[]): void {
    this.socket.write(
      Buffer.concat(bytes.map((b) => (typeof b === "string" ? Buffer.from(b, "latin1") : Buffer.of(b)))),
    );
  }

  async receive(count: number): Promise<number[]> {
    await until(() => this.bytes.length >= count || this.closed);
    const taken = this.bytes.subarray(0, count);
    this.bytes = this.bytes.subarray(count);
    return [...taken];
  }
}

function connectName(name: string, port: number): (number | string)[] {
  return [5, 1, 0, 3, name.length, name, port >> 8, port & 255];
}

async function greeted(server: Socks5Server): Promise<Client> {
  const client = new Client(server);
  client.send(5, 1, 0);
  expect(await client.receive(2)).toEqual([5, 0]);
  return client;
}

test("a CONNECT to a service's name reaches the real service and carries bytes both ways", async () => {
  const world = new World();
  const service = await listen((socket) => socket.pipe(socket));
  cleanups.push(() => service.close());
  world.gateway({ serves: new Map([["staging", { host: "127.0.0.1", port: service.port }]]) });
  const client = await greeted(await socks(world));
  client.send(...connectName("staging", 80));
  expect((await client.receive(22)).slice(0, 4)).toEqual([5, 0, 0, 4]);
  client.socket.end("hello over the overlay");
  await until(() => client.ended);
  expect(client.bytes.toString()).toBe("hello over the overlay");
  await until(() => world.flows.length === 1);
  expect(world.flows[0]).toMatchObject({
    caller: { session: CODER, identity: "agent:coder" },
    protocol: "tcp",
    target: "service:staging",
    ruleId: "g1",
    revision: 7,
    policyVersion: 3,
    bytesIn: 22,
    bytesOut: 22,
    end: "closed",
  });
});

const DENIED = [5, 2, 0, 1, 0, 0, 0, 0, 0, 0];

test("what is denied, discoverable or doesn't exist gets the same bytes", async () => {
  const world = new World();
  world.allowed = () => false;
  world.allowedHost = () => false;
  const server = await socks(world);
  for (const name of ["gw", "staging", "nobody", "x.internal", "production", "10.1.2.3", "a b", "%s\n", "127.1"]) {
    const client = await greeted(server);
    client.send(...connectName(name, 80));
    expect(await client.receive(10), name).toEqual(DENIED);
    await until(() => client.ended);
    expect(client.bytes.length, name).toBe(0);
  }
  expect(world.stack.openings).toEqual([]);
});

test("what the far end answers becomes the reply code: refused 5, unreachable 4, prohibited 2", async () => {
  const world = new World();
  const server = await socks(world);
  for (const [answer, code] of [
    ["refuse", 5],
    ["host", 4],
    ["prohibited", 2],
  ] as const) {
    world.stack.onTcp = (opening) => (answer === "refuse" ? opening.refuse(0) : opening.unreachable(0, answer));
    const client = await greeted(server);
    client.send(5, 1, 0, 4, ...address16(STAGING_ADDRESS), 0, 80);
    expect((await client.receive(10)).slice(0, 2), answer).toEqual([5, code]);
  }
});

function address16(text: string): number[] {
  const a = address(text);
  return [a.w0, a.w1, a.w2, a.w3].flatMap((word) => [word >>> 24, (word >>> 16) & 255, (word >>> 8) & 255, word & 255]);
}

test("an IPv4 address is dialled as it is", async () => {
  const world = new World();
  const server = await socks(world);
  const client = await greeted(server);
  client.send(5, 1, 0, 1, 10, 20, 0, 5, 0x15, 0x38);
  expect((await client.receive(10))[1]).toBe(5);
  expect(world.stack.openings[0]!.local).toEqual({ address: address("10.20.0.5"), port: 5432 });
});

test("BIND and UDP ASSOCIATE get 7, an unknown address type 8, a bad reserved byte or port 0 gets 1", async () => {
  const server = await socks(new World());
  for (const [request, code] of [
    [[5, 2, 0, 1, 1, 2, 3, 4, 0, 80], 7],
    [[5, 3, 0, 1, 1, 2, 3, 4, 0, 80], 7],
    [[5, 1, 0, 2, 1, 2, 3, 4, 0, 80], 8],
    [[5, 1, 9, 1, 1, 2, 3, 4, 0, 80], 1],
    [[5, 1, 0, 1, 1, 2, 3, 4, 0, 0], 1],
    [[5, 1, 0, 3, 0, 0, 80], 1],
  ] as const) {
    const client = await greeted(server);
    client.send(...request);
    expect((await client.receive(10))[1], request.join(" ")).toBe(code);
    await until(() => client.ended);
  }
});

test("what is not SOCKS5 is closed without an answer, no usable method gets 5 255", async () => {
  const server = await socks(new World());
  const http = new Client(server);
  http.send("GET / HTTP/1.1\r\n\r\n");
  await until(() => http.closed || http.ended);
  expect(http.bytes.length).toBe(0);
  const gssapi = new Client(server);
  gssapi.send(5, 1, 1);
  expect(await gssapi.receive(2)).toEqual([5, 255]);
});

test("with credentials: no method without them, a wrong password ends it, the right one passes", async () => {
  const world = new World();
  const server = await socks(world, { credentials: { user: "coder", password: "canary-secret" }, owner: NOBODY });
  const none = new Client(server);
  none.send(5, 1, 0);
  expect(await none.receive(2)).toEqual([5, 255]);
  for (const [user, password] of [
    ["coder", "canary-secreT"],
    ["coder", ""],
    ["", "canary-secret"],
    ["coder", "canary-secret2"],
  ] as const) {
    const wrong = new Client(server);
    wrong.send(5, 2, 0, 2, 1, user.length, user, password.length, password);
    expect(await wrong.receive(4)).toEqual([5, 2, 1, 1]);
    await until(() => wrong.ended);
  }
  const right = new Client(server);
  right.send(5, 1, 2, 1, 5, "coder", 13, "canary-secret", ...connectName("nobody", 80));
  expect(await right.receive(14)).toEqual([5, 2, 1, 0, ...DENIED]);
});

const NOBODY = new OwnerCheck("proc", 1, () => undefined);

test("a handshake byte by byte works, one that never ends is closed in bounded time", async () => {
  const world = new World();
  const server = await socks(world, { handshakeMaxMs: 300 });
  const slow = await greeted(server);
  for (const byte of connectName("nobody", 80)) {
    slow.send(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(await slow.receive(10)).toEqual(DENIED);
  const silent = new Client(server);
  const dripping = await greeted(server);
  const drip = setInterval(() => dripping.send(5), 50);
  cleanups.push(() => clearInterval(drip));
  dripping.send(5, 1, 0, 3, 255);
  await until(() => silent.closed && dripping.closed, 2_000);
  expect(server.counters["handshake-timeout"]).toBe(2);
});

test("one client more than the limit is closed at the door, and there is room again after one has left", async () => {
  const refused: string[] = [];
  const server = await socks(new World(), { clientsMax: 2, onRefused: (line) => refused.push(line.reason) });
  const first = await greeted(server);
  await greeted(server);
  const third = new Client(server);
  await until(() => third.closed);
  expect(refused).toEqual(["too-many-clients"]);
  first.socket.destroy();
  await until(() => first.closed);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await greeted(server);
});

test("a client whose owner is another uid, or can't be found, is closed unread and leaves an audit line", async () => {
  const refused: unknown[] = [];
  for (const [owner, reason] of [
    [new OwnerCheck("proc", 1, () => 2), "other-uid"],
    [new OwnerCheck("proc", 1, () => undefined), "not-found"],
  ] as const) {
    const server = await socks(new World(), { owner, onRefused: (line) => refused.push(line) });
    const client = new Client(server);
    client.send(5, 1, 0);
    await until(() => client.closed);
    expect(client.bytes.length).toBe(0);
    expect(refused.pop()).toMatchObject({ reason });
  }
});

test("an address that isn't loopback needs both --allow-remote and credentials", async () => {
  const world = new World();
  const everywhere = { address: address("0.0.0.0"), port: 0 };
  const credentials = { user: "u", password: "p" };
  await expect(socks(world, { at: everywhere })).rejects.toMatchObject({ code: "USAGE" });
  await expect(socks(world, { at: everywhere, allowRemote: true })).rejects.toMatchObject({ code: "USAGE" });
  await expect(socks(world, { at: everywhere, credentials })).rejects.toMatchObject({ code: "USAGE" });
  const server = await socks(world, { at: everywhere, allowRemote: true, credentials });
  expect(server.entryPoint.protection).toBe("credentials");
});

test("where the owner can't be asked, TCP without credentials is refused", async () => {
  const owner = new OwnerCheck("refused", -1, () => undefined);
  await expect(socks(new World(), { owner })).rejects.toMatchObject({ code: "USAGE" });
});

test("bytes sent along with the request reach the service, first and in order", async () => {
  const world = new World();
  const service = await listen((socket) => socket.pipe(socket));
  cleanups.push(() => service.close());
  world.gateway({ serves: new Map([["staging", { host: "127.0.0.1", port: service.port }]]) });
  const client = await greeted(await socks(world));
  client.send(...connectName("staging", 80), "early ");
  expect((await client.receive(22))[1]).toBe(0);
  client.socket.end("and late");
  await until(() => client.ended);
  expect(client.bytes.toString()).toBe("early and late");
});

test("a name under a host: route is resolved by the gateway and dialled by address", async () => {
  const world = new World();
  const service = await listen((socket) => socket.end("from the service"));
  cleanups.push(() => service.close());
  const asked: string[] = [];
  world.gateway(
    { hostPatterns: ["*.internal"] },
    {
      resolve: async (name) => {
        asked.push(name);
        return [address("192.0.2.7")];
      },
      connectTcp: async (to, onLocal, signal) => {
        expect(to).toEqual({ address: address("192.0.2.7"), port: 8080 });
        const { hostNetwork } = await import("../../src/peer/real-network.ts");
        return hostNetwork.connectTcp({ address: address("127.0.0.1"), port: service.port }, onLocal, signal);
      },
    },
  );
  const client = await greeted(await socks(world));
  client.send(...connectName("API.Internal", 8080));
  expect((await client.receive(22))[1]).toBe(0);
  await until(() => client.ended);
  expect(client.bytes.toString()).toBe("from the service");
  expect(asked).toEqual(["api.internal"]);
  expect(world.stack.openings[0]!.local).toEqual({ address: address(GW_ADDRESS), port: 51_822 });
  client.socket.end();
  await until(() => world.flows.length === 1);
  expect(world.flows[0]).toMatchObject({ target: "host:api.internal", dialled: { port: 8080 }, bytesOut: 16 });
});
