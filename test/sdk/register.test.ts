// `--import wirebadge/register` over an unchanged program, in a process of its own: what is the network's goes over it,
// what isn't doesn't.
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { fileURLToPath } from "node:url";
import { Server as GrpcServer, ServerCredentials } from "@grpc/grpc-js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { OVERLAY_NAMES_REMEMBERED_MAX } from "../../src/base/limits.ts";
import type { Network } from "../../src/sdk/network.ts";
import { OverlayHosts } from "../../src/sdk/overlay-hosts.ts";
import { netmapOf } from "../peer/world.ts";
import { CERTIFICATE, KEY } from "./certificate.ts";
import { Scene } from "./scene.ts";

const REGISTER = fileURLToPath(new URL("../../src/sdk/register.ts", import.meta.url));
const POLICY = {
  services: {
    staging: { at: "staging.internal tcp:80", via: ["node:gw"] },
    grpc: { at: "grpc.internal tcp:50051", via: ["node:gw"] },
    secret: { at: "secret.internal tcp:80", via: ["node:gw"], discoverable: true },
  },
  routes: { "10.20.0.0/16": { via: ["node:gw"] }, "host:*.corp.internal": { via: ["node:gw"] } },
  grants: [
    { from: "agent:coder", to: "service:staging" },
    { from: "agent:coder", to: "service:grpc" },
    { from: "agent:coder", to: "node:server tcp:80,443" },
    { from: "agent:coder", to: "10.20.0.0/16 tcp:80" },
    { from: "agent:coder", to: "host:*.corp.internal tcp:80" },
  ],
};

let scene: Scene;
let service: Server;
let server: Network;
let local: number;
const folder = mkdtempSync(joinPath(tmpdir(), "wb-register-"));

beforeAll(async () => {
  service = createServer((request, response) => response.end(`service ${request.headers.host}`));
  await new Promise<void>((resolve) => service.listen(0, "127.0.0.1", resolve));
  local = (service.address() as AddressInfo).port;
  scene = await Scene.start(POLICY);
  await scene.gateway("node:gw", {
    serves: [`staging=127.0.0.1:${local}`, `secret=127.0.0.1:${local}`, `grpc=127.0.0.1:${await startGrpc()}`],
    routes: ["10.20.0.0/16", "host:*.corp.internal"],
  });
  server = await scene.join("node:server");
  const greet = createServer((request, response) => response.end(`hello ${server.whois(request.socket)?.identity}`));
  server.listen(80, greet);
  server.listen(
    443,
    createTlsServer({ key: KEY, cert: CERTIFICATE }, (_, response) => response.end("secret hello")),
  );
});
afterAll(async () => {
  await scene.end();
  service.close();
  grpcServer.forceShutdown();
  rmSync(folder, { recursive: true });
});

const bytes = (value: Buffer): Buffer => value;
const ECHO = {
  path: "/test.Echo/Say",
  requestStream: false,
  responseStream: false,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
};
const grpcServer = new GrpcServer();

async function startGrpc(): Promise<number> {
  grpcServer.addService(
    { say: ECHO },
    { say: (call: { request: Buffer }, done: (e: null, answer: Buffer) => void) => done(null, call.request) },
  );
  return await new Promise((resolve) =>
    grpcServer.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (_, port) => resolve(port)),
  );
}

interface Outcome {
  readonly code: number;
  readonly out: Record<string, unknown>;
  readonly stderr: string;
}

/** A program of one file; what it gives to `say` is the outcome. */
async function run(program: string, env: NodeJS.ProcessEnv, args: readonly string[] = []): Promise<Outcome> {
  const file = joinPath(folder, `app-${Math.random().toString(36).slice(2)}.mjs`);
  const head = "const out = {}; const say = async (name, work) => { out[name] = await work().catch((error) => ({ ";
  const caught = "message: error.message, code: error.code, cause: error.cause?.code, hint: error.hint })); };\n";
  writeFileSync(file, `${head}${caught}${program}\nconsole.log(JSON.stringify(out));`);
  const environment = { PATH: process.env["PATH"], ...env };
  return await new Promise((resolve) => {
    execFile(process.execPath, [...args, file], { env: environment, timeout: 30_000 }, (error, stdout, stderr) =>
      resolve({ code: Number(error?.code ?? 0), out: stdout === "" ? {} : JSON.parse(stdout), stderr }),
    );
  });
}

const WITH = ["--import", REGISTER];

test("net, tls, http and fetch of an unchanged program reach what is the network's, and the rest as ever", async () => {
  const program = `
    import { connect } from "node:net";
    import net from "node:net";
    import { get } from "node:http";
    import { connect as connectTls } from "node:tls";
    import https from "node:https";
    import { lookup } from "node:dns/promises";
    import { text } from "node:stream/consumers";
    import { once } from "node:events";
    const address = ${JSON.stringify(server.addresses[0])};
    const answer = async (request) => await text((await once(request, "response"))[0]);
    await say("fetch", async () => (await fetch("http://server/")).text());
    await say("http", async () => answer(get("http://server/")));
    await say("address", async () => answer(get("http://[" + address + "]/")));
    await say("service", async () => answer(get("http://staging/")));
    await say("https", async () => answer(https.get("https://server/", { ca: ${JSON.stringify(CERTIFICATE)} })));
    await say("tls", async () => {
      const socket = connectTls({ host: "server", port: 443, ca: ${JSON.stringify(CERTIFICATE)} });
      await once(socket, "secureConnect");
      socket.destroy();
      return [socket.authorized, socket.servername];
    });
    await say("socket", async () => {
      const socket = new net.Socket();
      socket.connect(80, "server");
      socket.end("GET / HTTP/1.0\\r\\n\\r\\n");
      return (await text(socket)).split("\\r\\n").at(-1);
    });
    await say("named import", async () => {
      const socket = connect({ host: "server", port: 80 });
      await once(socket, "connect");
      const { remoteAddress, localFamily } = socket;
      socket.destroy();
      return [remoteAddress === address, localFamily];
    });
    await say("lookup", async () => (await lookup("server")).address === address);
    await say("denied", async () => answer(get("http://secret/")));
    await say("denied fetch", async () => (await fetch("http://secret/")).text());
    await say("behind a route", async () => answer(get("http://10.20.0.9:81/")));
    await say("behind a name", async () => answer(get("http://db.corp.internal:81/")));
    await say("local", async () => (await fetch("http://127.0.0.1:${local}/")).text());
    await say("localhost", async () => answer(get("http://localhost:${local}/")));
    await say("nowhere", async () => answer(get("http://nowhere.invalid/")));
    out.token = process.env.WIREBADGE_TOKEN ?? "none";
  `;
  const { out, code, stderr } = await run(program, { WIREBADGE_TOKEN: await scene.token("agent:coder") }, WITH);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  expect(out).toMatchObject({
    fetch: "hello agent:coder",
    http: "hello agent:coder",
    address: "hello agent:coder",
    service: "service staging",
    https: "secret hello",
    tls: [true, "server"],
    socket: "hello agent:coder",
    "named import": [true, "IPv6"],
    lookup: true,
    denied: { code: "EACCES", hint: expect.stringContaining("service:secret") },
    "behind a route": { code: "EACCES", hint: expect.stringContaining("10.20.0.9 tcp:81") },
    "behind a name": { code: "EACCES", hint: expect.stringContaining("host:db.corp.internal tcp:81") },
    "denied fetch": { message: "fetch failed", cause: "EACCES" },
    local: `service 127.0.0.1:${local}`,
    localhost: `service localhost:${local}`,
    nowhere: { code: "ENOTFOUND", message: "getaddrinfo ENOTFOUND nowhere.invalid" },
    token: "none",
  });
}, 60_000);

test("grpc-js, which takes no socket of one's own, by its name and unchanged", async () => {
  const program = `
    import grpc from ${JSON.stringify(import.meta.resolve("@grpc/grpc-js"))};
    const bytes = (value) => value;
    const call = (target) => new Promise((resolve, reject) => {
      const client = new grpc.Client(target, grpc.credentials.createInsecure());
      client.makeUnaryRequest("/test.Echo/Say", bytes, bytes, Buffer.from("hello"), (error, answer) => {
        client.close();
        if (error) reject(error); else resolve(String(answer));
      });
    });
    await say("answer", () => call("grpc:50051"));
    await say("denied", () => call("secret:80"));`;
  const { out, stderr } = await run(program, { WIREBADGE_TOKEN: await scene.token("agent:coder") }, WITH);
  expect(stderr).toBe("");
  expect(out).toMatchObject({ answer: "hello", denied: { code: 14 } });
});

test("without it the same names lead nowhere; a session in memory ends with the program", async () => {
  const program = `await say("fetch", async () => (await fetch("http://server/")).text());`;
  expect((await run(program, {})).out).toMatchObject({ fetch: { message: "fetch failed" } });
  const before = (await scene.network.auditActions()).filter((action) => action === "session.leave").length;
  const { out } = await run(program, { WIREBADGE_TOKEN: await scene.token("agent:coder") }, WITH);
  expect(out).toEqual({ fetch: "hello agent:coder" });
  const after = (await scene.network.auditActions()).filter((action) => action === "session.leave").length;
  expect(after).toBe(before + 1);
});

test("a token file, then the state folder alone", async () => {
  const file = joinPath(folder, "coder.token");
  writeFileSync(file, await scene.token("agent:coder"), { mode: 0o600 });
  const state = joinPath(folder, "state");
  const program = `await say("fetch", async () => (await fetch("http://server/")).text());`;
  const first = await run(program, { WIREBADGE_TOKEN_FILE: file, WIREBADGE_STATE: state }, WITH);
  expect(first.out).toEqual({ fetch: "hello agent:coder" });
  const second = await run(program, { WIREBADGE_STATE: state }, WITH);
  expect(second.out).toEqual({ fetch: "hello agent:coder" });
});

test("a program that can't join does not run, and says why", async () => {
  const program = "out.ran = true;";
  for (const [env, says] of [
    [{}, /USAGE.*\n.*WIREBADGE_TOKEN/],
    [{ WIREBADGE_TOKEN: "wb_join_x" }, /TOKEN_INVALID/],
    [{ WIREBADGE_TOKEN_FILE: "/nowhere" }, /TOKEN_INVALID.*\/nowhere/],
  ] as const) {
    const { code, out, stderr } = await run(program, env, WITH);
    expect(code).toBe(2);
    expect(out).toEqual({});
    expect(stderr).toMatch(says);
    expect(stderr.split("\n").length).toBeLessThan(4);
  }
});

test("a worker goes without the network: it has no session of its own", async () => {
  const program = `
    import { Worker } from "node:worker_threads";
    await say("worker", () => new Promise((resolve) => {
      const text = 'require("worker_threads").parentPort.postMessage("alive")';
      new Worker(text, { eval: true }).on("message", resolve);
    }));`;
  const { out, stderr } = await run(program, { WIREBADGE_TOKEN: await scene.token("agent:coder") }, WITH);
  expect(stderr).toBe("");
  expect(out).toEqual({ worker: "alive" });
});

test("a name that was the network's never falls through to another resolver; the oldest are forgotten", () => {
  let map = netmapOf();
  const hosts = new OverlayHosts(() => map);
  expect(hosts.covers("staging")).toBe(true);
  expect(hosts.covers("STAGING")).toBe(true);
  expect(hosts.covers("example.com")).toBe(false);
  for (const own of ["localhost", "a.localhost", "127.0.0.1", "::1", "169.254.169.254", ""]) {
    expect(hosts.covers(own), own).toBe(false);
  }
  map = { ...map, services: [], peers: [], hostRoutes: [{ pattern: "host:*", gateways: [] }] };
  expect(hosts.covers("example.com")).toBe(true);
  expect(hosts.covers("localhost")).toBe(false);
  map = { ...map, hostRoutes: [] };
  expect(hosts.covers("staging")).toBe(true);
  expect(hosts.covers(`new.${map.network.name}.internal`)).toBe(true);
  map = { ...map, hostRoutes: [{ pattern: "host:*", gateways: [] }] };
  for (let i = 0; i <= OVERLAY_NAMES_REMEMBERED_MAX; i++) hosts.covers(`n${i}.example`);
  map = { ...map, hostRoutes: [] };
  expect(hosts.rememberedCount).toBe(OVERLAY_NAMES_REMEMBERED_MAX);
  expect(hosts.covers("staging")).toBe(false);
  expect(hosts.covers(`n${OVERLAY_NAMES_REMEMBERED_MAX}.example`)).toBe(true);
});

test("this process is as it was: nothing is replaced by importing the SDK alone", () => {
  expect(String(connect)).toContain("normalizeArgs");
});
