// HTTP over the network: fetch, agents, the dispatcher and TLS, to a service behind a gateway and to a server on the
// overlay.
import { once } from "node:events";
import { createServer, get, type IncomingMessage, type Server } from "node:http";
import { createServer as createTlsServer, get as getTls } from "node:https";
import { type AddressInfo, connect as connectReal } from "node:net";
import { text } from "node:stream/consumers";
import type { TLSSocket } from "node:tls";
import { request as undiciRequest } from "undici";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Network } from "../../src/sdk/network.ts";
import { until } from "../peer/world.ts";
import { CERTIFICATE, KEY } from "./certificate.ts";
import { Scene } from "./scene.ts";

const POLICY = {
  services: {
    staging: { at: "staging.internal tcp:80,443", via: ["node:gw"] },
    secret: { at: "secret.internal tcp:80", via: ["node:gw"], discoverable: true },
  },
  grants: [
    { from: "agent:coder", to: "service:staging" },
    { from: "agent:coder", to: "node:server tcp:80,443" },
  ],
};

let scene: Scene;
let http: Server;
let coder: Network;
let server: Network;

async function listening(made: Server): Promise<number> {
  await new Promise<void>((resolve) => made.listen(0, "127.0.0.1", resolve));
  return (made.address() as AddressInfo).port;
}

beforeAll(async () => {
  http = createServer(async (request, response) => {
    if (request.url === "/hang") return;
    const body = await text(request);
    response.end(`${request.method} ${request.headers.host}${request.url} ${body}`);
  });
  const port = await listening(http);
  scene = await Scene.start(POLICY);
  await scene.gateway("node:gw", { serves: [`staging=127.0.0.1:${port}`, `secret=127.0.0.1:${port}`] });
  server = await scene.join("node:server");
  server.listen(
    80,
    createServer((request, response) => response.end(`hello ${server.whois(request.socket)?.identity}`)),
  );
  server.listen(
    443,
    createTlsServer({ key: KEY, cert: CERTIFICATE }, (request, response) => {
      const socket = request.socket as TLSSocket & { servername: string };
      response.end(`hello ${server.whois(socket)?.identity} at ${socket.servername}`);
    }),
  );
  coder = await scene.join("agent:coder");
  await until(() => coder.can("node:server tcp:80").allowed);
});
afterAll(async () => {
  await scene.end();
  http.close();
});

const answerOf = async (request: ReturnType<typeof get>): Promise<string> =>
  await text(((await once(request, "response")) as [IncomingMessage])[0]);

test("fetch: a question, a body, headers, streaming, and connections that are kept", async () => {
  const response = await coder.fetch("http://staging/a?b=c", { headers: { "x-a": "1" } });
  expect(response).toBeInstanceOf(Response);
  expect([response.status, await response.text()]).toEqual([200, "GET staging/a?b=c "]);
  const form = new FormData();
  form.set("name", "value");
  const posted = await coder.fetch(new Request("http://staging/", { method: "POST", body: form }));
  expect(await posted.text()).toContain('name="name"');
  const large = "x".repeat(2_000_000);
  expect((await (await coder.fetch("http://staging/", { method: "PUT", body: large })).text()).length).toBeGreaterThan(
    large.length,
  );
  const all = await Promise.all(
    Array.from({ length: 20 }, async (_, i) => (await coder.fetch(`http://staging/${i}`)).text()),
  );
  expect(all[19]).toBe("GET staging/19 ");
});

test("fetch of a server on the overlay, which greets its caller by identity; over TLS too, with SNI", async () => {
  expect(await (await coder.fetch("http://server/")).text()).toBe("hello agent:coder");
  const address = server.addresses[0]!;
  expect(await (await coder.fetch(`http://[${address}]/`)).text()).toBe("hello agent:coder");
  const error = await coder.fetch("https://server/").catch((failure: Error) => failure);
  expect(error).toMatchObject({ cause: { code: "DEPTH_ZERO_SELF_SIGNED_CERT" } });
  const request = getTls({ host: "server", agent: coder.httpsAgent, ca: CERTIFICATE });
  expect(await answerOf(request)).toBe("hello agent:coder at server");
  const wrong = getTls({ host: address, agent: coder.httpsAgent, ca: CERTIFICATE });
  expect((await once(wrong, "error"))[0]).toMatchObject({ code: "ERR_TLS_CERT_ALTNAME_INVALID" });
});

test("what is denied says so: as fetch's cause, and as an agent's error, over TLS too", async () => {
  const denied = { code: "EACCES", reason: "NO_GRANT", denialId: expect.any(String), hint: expect.any(String) };
  const error = await coder.fetch("http://secret/").catch((failure: Error) => failure);
  expect(error).toBeInstanceOf(TypeError);
  expect(error).toMatchObject({ cause: denied });
  expect(await coder.fetch("https://secret:80/").catch((failure: Error) => failure)).toMatchObject({ cause: denied });
  expect((await once(get("http://secret/", { agent: coder.httpAgent }), "error"))[0]).toMatchObject(denied);
  expect((await once(getTls("https://secret:80/", { agent: coder.httpsAgent }), "error"))[0]).toMatchObject(denied);
});

test("the agent keeps connections, by name and port", async () => {
  const ports: (number | undefined)[] = [];
  for (let i = 0; i < 3; i++) {
    const request = get("http://staging/", { agent: coder.httpAgent });
    request.once("socket", (socket) => socket.once("close", () => undefined));
    await answerOf(request);
    ports.push(request.socket?.localPort);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(new Set(ports).size).toBe(1);
});

test("the dispatcher is undici's own, for its request and for the global fetch", async () => {
  const { body } = await undiciRequest("http://staging/u", { dispatcher: coder.dispatcher });
  expect(await body.text()).toBe("GET staging/u ");
  const options = { dispatcher: coder.dispatcher } as unknown as RequestInit;
  expect(await (await fetch("http://staging/g", options)).text()).toBe("GET staging/g ");
});

test("an aborted fetch and one of a network that was left fail, and nothing stays open", async () => {
  const net = await scene.join("agent:coder");
  const controller = new AbortController();
  const hanging = net.fetch("http://staging/hang", { signal: controller.signal });
  setTimeout(() => controller.abort(), 100);
  await expect(hanging).rejects.toMatchObject({ name: "AbortError" });
  await net.fetch("http://staging/");
  const { httpAgent, dispatcher } = net;
  await net.close();
  const left = { code: "PEER_NOT_RUNNING" };
  expect((await once(get("http://staging/", { agent: httpAgent }), "error"))[0]).toMatchObject(left);
  await expect(undiciRequest("http://staging/", { dispatcher })).rejects.toMatchObject(left);
  expect((await once(connectReal({ port: 9, host: "127.0.0.1" }), "error"))[0]).toMatchObject({ code: "ECONNREFUSED" });
});

test("lookup knows services and nodes, and NAME.NETWORK.internal is the same", async () => {
  const lookup = (host: string, options: object) =>
    new Promise((resolve) => coder.lookup(host, options, (error, found) => resolve(error ?? found)));
  const [name] = (await coder.status()).network!.name.split(" ");
  expect(await lookup("server", {})).toBe(server.addresses[0]);
  expect(await lookup(`server.${name}.internal`, { all: true, family: 6 })).toEqual([
    { address: server.addresses[0], family: 6 },
  ]);
  expect(await lookup("staging", { family: "IPv6" })).toMatch(/^fd/);
  expect(await lookup("example.com", {})).toMatchObject({ code: "ENOTFOUND", syscall: "getaddrinfo" });
  expect(await (await coder.fetch(`http://server.${name}.internal/`)).text()).toBe("hello agent:coder");
});
