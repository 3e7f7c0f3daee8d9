import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { ForwardServer, parseForward } from "../../src/peer/forward.ts";
import { parseOffers, parseServeTarget } from "../../src/peer/gateway-offers.ts";
import type { RefusedClient } from "../../src/peer/local-listener.ts";
import type { DialError } from "../../src/peer/overlay.ts";
import { OwnerCheck } from "../../src/peer/owner.ts";
import { address, listen, until, World } from "./world.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

test.each([
  [
    "5432=staging-db:5432",
    { at: { address: address("127.0.0.1"), port: 5432 }, target: { host: "staging-db", port: 5432 } },
  ],
  ["[::1]:80=[fd00::1]:81", { at: { address: address("::1"), port: 80 }, target: { host: "fd00::1", port: 81 } }],
  [
    "localhost:0=10.0.0.1:81",
    { at: { address: address("127.0.0.1"), port: 0 }, target: { host: "10.0.0.1", port: 81 } },
  ],
  ["/run/a=b.sock=db:1", { at: { path: "/run/a=b.sock" }, target: { host: "db", port: 1 } }],
  ["unix:/x=service:db", { at: { path: "/x" }, target: { host: "service:db", port: 0 } }],
  ["1=node:gw-1:22", { at: { address: address("127.0.0.1"), port: 1 }, target: { host: "node:gw-1", port: 22 } }],
])("--forward %s is read", (text, forward) => {
  expect(parseForward(text)).toEqual(forward);
});

test.each([
  "",
  "=",
  "80",
  "80=",
  "=db:80",
  "80=db",
  "80=db:0",
  "80=db:65536",
  "80=[db]:1",
  "80=node:gw",
  "x=db:1",
  "80=service:10.0.0.1",
  "host.example:80=db:1",
  "99999=db:1",
  "80=a b:1",
  "[127.0.0.1:1=db:1",
])("--forward %s is refused with a hint", (text) => {
  expect(() => parseForward(text)).toThrow(expect.objectContaining({ code: "USAGE", hint: expect.any(String) }));
});

test("--route, --serve and --expose are read, and refused with a hint when they can't be", () => {
  const offers = parseOffers({
    routes: ["10.20.0.0/16", "host:*.Staging.internal", "host:*"],
    serves: ["db", "web=127.0.0.1:8080", "sock=/run/web.sock", "six=[::1]:80", "named=localhost:81", "all"],
    exposes: ["127.0.0.1:3000=80", "3001=81"],
  });
  expect(offers.hostPatterns).toEqual(["*.staging.internal", "*"]);
  expect(offers.serveAll).toBe(true);
  expect([...offers.serves]).toEqual([
    ["db", undefined],
    ["web", { host: "127.0.0.1", port: 8080 }],
    ["sock", { path: "/run/web.sock" }],
    ["six", { host: "::1", port: 80 }],
    ["named", { host: "localhost", port: 81 }],
  ]);
  expect(offers.exposes.get(81)).toEqual({ host: "127.0.0.1", port: 3001 });
  const usage = expect.objectContaining({ code: "USAGE", hint: expect.any(String) });
  for (const route of ["10.0.0.0/33", "db", "host:", "host:*.*.x", "host:a b", ""]) {
    expect(() => parseOffers({ routes: [route], serves: [], exposes: [] }), route).toThrow(usage);
  }
  for (const serve of ["", "Web", "web=", "web=x:0", "web=[10.0.0.1]:1", "-a", "a=b=c"]) {
    expect(() => parseOffers({ routes: [], serves: [serve], exposes: [] }), serve).toThrow(usage);
  }
  for (const expose of ["80", "=80", "80=", "80=x", "80=0", "80=65536"]) {
    expect(() => parseOffers({ routes: [], serves: [], exposes: [expose] }), expose).toThrow(usage);
  }
  expect(() => parseServeTarget("--serve", "a:b:1")).toThrow(usage);
});

async function forward(world: World, listenAt: string, owner = new OwnerCheck("proc", 1, () => 1)) {
  const refused: RefusedClient[] = [];
  const errors: DialError[] = [];
  const server = await ForwardServer.open({
    forward: parseForward(`${listenAt}=staging:80`),
    dialer: world.dialer(),
    turns: world.turns,
    owner,
    onRefused: (line) => refused.push(line),
    onDialError: (error) => errors.push(error),
  });
  cleanups.push(() => server.close());
  return { server, refused, errors };
}

test("a local port and a unix socket reach the service; the socket's folder is its guard", async () => {
  const service = await listen((socket) => socket.pipe(socket));
  cleanups.push(() => service.close());
  const folder = mkdtempSync(join(tmpdir(), "wb-fwd-"));
  cleanups.push(() => rmSync(folder, { recursive: true }));
  const world = new World();
  world.gateway({ serves: new Map([["staging", { host: "127.0.0.1", port: service.port }]]) });
  const tcp = await forward(world, "127.0.0.1:0");
  const unix = await forward(world, join(folder, "db.sock"), new OwnerCheck("refused", -1, () => undefined));
  expect(unix.server.entryPoint).toMatchObject({ kind: "forward", target: "staging:80", protection: "folder" });
  expect(tcp.server.entryPoint.protection).toBe("owner-proc");
  const port = "port" in tcp.server.at ? tcp.server.at.port : 0;
  for (const client of [connect(port, "127.0.0.1"), connect(join(folder, "db.sock"))]) {
    let got = "";
    client.on("data", (chunk) => {
      got += chunk;
    });
    client.end("over the forward");
    await until(() => got === "over the forward");
  }
  mkdirSync(join(folder, "open"), { mode: 0o755 });
  await expect(forward(world, join(folder, "open", "db.sock"))).rejects.toMatchObject({ code: "USAGE" });
});

test("a denied dial resets the client and tells the peer's own log why; another uid doesn't get that far", async () => {
  const world = new World();
  world.allowed = () => false;
  const { server, errors } = await forward(world, "127.0.0.1:0");
  const port = "port" in server.at ? server.at.port : 0;
  const client = connect(port, "127.0.0.1");
  const codes: unknown[] = [];
  client.on("error", (error: NodeJS.ErrnoException) => codes.push(error.code));
  await until(() => client.destroyed);
  expect(codes).toEqual(["ECONNRESET"]);
  expect(errors[0]).toMatchObject({ kind: "denied", denialId: "d_0000000000" });
  const other = await forward(world, "127.0.0.1:0", new OwnerCheck("proc", 1, () => 2));
  const foreign = connect("port" in other.server.at ? other.server.at.port : 0, "127.0.0.1");
  foreign.on("error", () => undefined);
  await until(() => other.refused.length === 1);
  expect(other.refused[0]).toMatchObject({ reason: "other-uid", uid: 2 });
  expect(other.errors).toEqual([]);
});
