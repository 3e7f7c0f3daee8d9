import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { WirebadgeError } from "../../src/base/errors.ts";
import { LOCAL_API_BODY_MAX_BYTES } from "../../src/base/limits.ts";
import { LocalApiServer } from "../../src/peer/local-api.ts";
import { LocalApiClient, listRunningPeers } from "../../src/peer/local-api-client.ts";
import { type LocalApiHost, problemSchema, type Status } from "../../src/peer/local-api-schema.ts";

const STATUS: Status = {
  version: "0.1.0",
  mode: "coordinator",
  pid: 1,
  startedMs: 1,
  nowMs: 2,
  identity: "agent:coder",
  tags: ["prod"],
  session: "s_1",
  publicKey: "k",
  addresses: ["fd00::1"],
  listenPort: 51820,
  udp: { name: "native", reason: "" },
  crypto: { name: "native", reason: "passed its vectors" },
  ownerCheck: "sock-diag",
  peers: [],
  services: [],
  serving: [],
  refusedOffers: [],
  entryPoints: [],
  counters: { "inbound-no-rule": 3 },
};

let root: string;
const failures: unknown[] = [];
const cleanups: (() => unknown)[] = [];
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "wb-api-"));
  failures.length = 0;
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
  rmSync(root, { recursive: true });
});

const HOST: LocalApiHost = {
  status: () => STATUS,
  whois: (of) => {
    if (of !== "fd00::7") throw new WirebadgeError("NOT_FOUND", "nobody has that address", { hint: "see status" });
    return { of, session: "s_7", identity: "node:gw", tags: [], addresses: [of], via: "address" };
  },
  can: (destination) => ({ destination, allowed: false, reason: "NO_GRANT" }),
  denials: () => ({ denials: [] }),
  ping: async (name) => ({ name, address: "fd00::7", rttMs: 1.5, path: "direct" }),
};

async function serve(host: Partial<LocalApiHost> = {}, name = "peer"): Promise<LocalApiClient> {
  const folder = join(root, name);
  mkdirSync(folder, { mode: 0o700 });
  const server = await LocalApiServer.open({
    host: { ...HOST, ...host },
    path: join(folder, "peer.sock"),
    onFailure: (error) => failures.push(error),
  });
  cleanups.push(() => server.close());
  return new LocalApiClient(folder);
}

/** Raw bytes in, the whole answer out. */
function raw(client: LocalApiClient, text: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(client.socketPath);
    let answer = "";
    socket.on("data", (chunk) => {
      answer += chunk;
    });
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(answer));
    socket.write(text);
  });
}

function problem(answer: string) {
  const [head, body] = answer.split("\r\n\r\n");
  expect(head).toContain("application/problem+json");
  return problemSchema.parse(JSON.parse(body!));
}

test("every question is answered through the client", async () => {
  const client = await serve();
  expect(await client.status()).toEqual(STATUS);
  expect((await client.whois("fd00::7")).identity).toBe("node:gw");
  expect((await client.can("service:a&b=c tcp:1")).destination).toBe("service:a&b=c tcp:1");
  expect(await client.denials()).toEqual({ denials: [] });
  expect((await client.ping("gw")).rttMs).toBe(1.5);
});

test("a failure of the host becomes a problem with code and hint; our own bug is for the log alone", async () => {
  const client = await serve({
    can: () => {
      throw new Error("CANARY inside");
    },
  });
  await expect(client.whois("fd00::8")).rejects.toMatchObject({ code: "NOT_FOUND", hint: "see status" });
  const error = await client.can("x").catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: "INTERNAL" });
  expect(String(error)).not.toContain("CANARY");
  expect(String(failures[0])).toContain("CANARY");
});

const GET = "GET /v1/status HTTP/1.1\r\n";

test("a web page can't ask: another Host, or any Origin, is refused", async () => {
  const client = await serve();
  for (const headers of [
    "Host: localhost\r\n",
    "Host: wirebadge:80\r\n",
    "Host: evil.example\r\n",
    "Host: wirebadge\r\nOrigin: http://wirebadge\r\n",
    "Host: wirebadge\r\nOrigin: null\r\n",
  ]) {
    expect(problem(await raw(client, `${GET}${headers}Connection: close\r\n\r\n`)).code, headers).toBe("FORBIDDEN");
  }
  expect(await raw(client, `${GET}Connection: close\r\n\r\n`)).toContain(" 400 ");
  expect(await raw(client, `${GET}Host: wirebadge\r\nHost: x\r\nConnection: close\r\n\r\n`)).not.toContain(" 200 ");
  expect(await raw(client, `${GET}Host: wirebadge\r\nConnection: close\r\n\r\n`)).toContain(" 200 ");
});

test.each([
  ["GET", "/v1/nothing", "", "NOT_FOUND"],
  ["GET", "/v1/status/", "", "NOT_FOUND"],
  ["GET", "/v1/__proto__", "", "NOT_FOUND"],
  ["GET", "/__proto__", "", "NOT_FOUND"],
  ["GET", "//", "", "NOT_FOUND"],
  ["GET", "//[", "", "NOT_FOUND"],
  ["POST", "/v1/status", "", "METHOD_NOT_ALLOWED"],
  ["DELETE", "/v1/denials", "", "METHOD_NOT_ALLOWED"],
  ["GET", "/v1/ping", "", "METHOD_NOT_ALLOWED"],
  ["GET", "/v1/status?x=1", "", "USAGE"],
  ["GET", "/v1/whois", "", "USAGE"],
  ["GET", "/v1/whois?of=", "", "USAGE"],
  ["GET", "/v1/whois?name=a", "", "USAGE"],
  ["GET", "/v1/whois?of=a&of=b", "", "USAGE"],
  ["GET", "/v1/can?dest=a&x=1", "", "USAGE"],
  ["GET", `/v1/can?dest=${"a".repeat(2000)}`, "", "USAGE"],
  ["GET", "/v1/status", "{}", "USAGE"],
  ["POST", "/v1/ping", '{"name": 1}', "USAGE"],
  ["POST", "/v1/ping", '{"name": "x", "y": 1}', "USAGE"],
  ["POST", "/v1/ping", "{", "USAGE"],
  ["POST", "/v1/ping", " ".repeat(LOCAL_API_BODY_MAX_BYTES + 1), "TOO_LARGE"],
])("%s %s is refused (%#)", async (method, path, body, code) => {
  const client = await serve();
  const head = `${method} ${path} HTTP/1.1\r\nHost: wirebadge\r\nConnection: close\r\n`;
  const type = body === "" ? "" : `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`;
  expect(problem(await raw(client, `${head}${type}\r\n${body}`)).code).toBe(code);
  expect(failures).toEqual([]);
});

test("a ping whose body isn't said to be JSON is refused", async () => {
  const client = await serve();
  const head = "POST /v1/ping HTTP/1.1\r\nHost: wirebadge\r\nConnection: close\r\n";
  const answer = await raw(client, `${head}Content-Type: text/plain\r\nContent-Length: 12\r\n\r\n{"name":"x"}`);
  expect(problem(answer).code).toBe("USAGE");
});

test("a client that goes away in the middle of its body is no failure of ours", async () => {
  const client = await serve();
  const head = "POST /v1/ping HTTP/1.1\r\nHost: wirebadge\r\nContent-Type: application/json\r\nContent-Length: 9\r\n";
  await new Promise<void>((resolve) => {
    const socket = connect(client.socketPath);
    socket.on("error", () => undefined);
    socket.on("close", () => resolve());
    socket.resume().end(`${head}\r\n{`);
  });
  expect(await client.denials()).toEqual({ denials: [] });
  expect(failures).toEqual([]);
});

test("what isn't HTTP, and headers without end, are closed", async () => {
  const client = await serve();
  expect(await raw(client, "\x16\x03\x01 hello\r\n\r\n")).toBe("");
  expect(await raw(client, `${GET}Host: wirebadge\r\nX: ${"a".repeat(20_000)}\r\n\r\n`)).toBe("");
});

test("the socket is the owner's alone, and a folder that isn't is refused", async () => {
  const client = await serve();
  expect(statSync(client.socketPath).mode & 0o777).toBe(0o600);
  const open = join(root, "open");
  mkdirSync(open, { mode: 0o755 });
  const opening = LocalApiServer.open({ host: HOST, path: join(open, "peer.sock"), onFailure: () => undefined });
  await expect(opening).rejects.toMatchObject({ code: "USAGE" });
  const long = join(root, "x".repeat(120), "peer.sock");
  const tooLong = LocalApiServer.open({ host: HOST, path: long, onFailure: () => undefined });
  await expect(tooLong).rejects.toMatchObject({ code: "USAGE", hint: expect.stringContaining("shorter") });
});

test("a live peer's socket isn't taken over, a dead one's is", async () => {
  const client = await serve();
  const again = LocalApiServer.open({ host: HOST, path: client.socketPath, onFailure: () => undefined });
  await expect(again).rejects.toMatchObject({ code: "PORT_TAKEN" });
  const dead = join(root, "dead");
  mkdirSync(dead, { mode: 0o700 });
  const { execFileSync } = await import("node:child_process");
  const path = JSON.stringify(join(dead, "peer.sock"));
  const program = `require("net").createServer().listen(${path}, () => process.kill(process.pid, 9))`;
  expect(() => execFileSync(process.execPath, ["-e", program], { stdio: "ignore" })).toThrow();
  expect(statSync(join(dead, "peer.sock")).isSocket()).toBe(true);
  await expect(new LocalApiClient(dead).status()).rejects.toMatchObject({ code: "PEER_NOT_RUNNING" });
  const server = await LocalApiServer.open({ host: HOST, path: join(dead, "peer.sock"), onFailure: () => undefined });
  expect((await new LocalApiClient(dead).status()).identity).toBe("agent:coder");
  await server.close();
});

test("the only running peer is found; of several the hint lists them; none is an error with a hint", async () => {
  await expect(LocalApiClient.find(root, undefined)).rejects.toMatchObject({ code: "PEER_NOT_RUNNING" });
  await expect(LocalApiClient.find(root, join(root, "none"))).rejects.toMatchObject({ code: "PEER_NOT_RUNNING" });
  const first = await serve({}, "a");
  mkdirSync(join(root, "stale"), { mode: 0o700 });
  writeFileSync(join(root, "stale", "peer.sock"), "");
  expect((await LocalApiClient.find(root, undefined)).socketPath).toBe(first.socketPath);
  await serve({ status: () => ({ ...STATUS, identity: "node:gw" }) }, "b");
  expect(await listRunningPeers(root)).toEqual([
    { folder: join(root, "a"), identity: "agent:coder" },
    { folder: join(root, "b"), identity: "node:gw" },
  ]);
  const error = await LocalApiClient.find(root, undefined).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: "PEER_AMBIGUOUS" });
  expect((error as WirebadgeError).hint).toContain(`--state ${join(root, "b")} (node:gw)`);
  expect((await (await LocalApiClient.find(root, join(root, "b"))).status()).identity).toBe("node:gw");
});

test("an answer of another version is named, not passed on", async () => {
  const client = await serve();
  const { createServer } = await import("node:http");
  const other = createServer((_request, response) => response.end('{"surprise": 1}'));
  const folder = join(root, "other");
  mkdirSync(folder, { mode: 0o700 });
  await new Promise<void>((resolve) => other.listen(join(folder, "peer.sock"), resolve));
  cleanups.push(() => other.close());
  await expect(new LocalApiClient(folder).status()).rejects.toMatchObject({ code: "PROTOCOL_VERSION" });
  expect((await client.status()).version).toBe("0.1.0");
});
