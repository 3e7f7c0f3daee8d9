// net.udp of a network, held against dgram: the same program runs over both.
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Network } from "../../src/sdk/network.ts";
import { until } from "../peer/world.ts";
import { Scene } from "./scene.ts";

const POLICY = {
  services: { echo: { at: "echo.internal udp:7", via: ["node:gw"] } },
  grants: [
    { from: "agent:coder", to: "service:echo" },
    { from: "agent:coder", to: "node:server udp:any" },
    { from: "node:server", to: "agent:coder udp:40000" }, // else the server may answer alone
  ],
};

let scene: Scene;
let service: Socket;
let coder: Network;
let server: Network;

beforeAll(async () => {
  service = createSocket("udp4");
  service.on("message", (bytes, { port, address }) => service.send(bytes, port, address));
  await new Promise<void>((resolve) => service.bind(0, "127.0.0.1", resolve));
  scene = await Scene.start(POLICY);
  await scene.gateway("node:gw", { serves: [`echo=127.0.0.1:${service.address().port}`] });
  server = await scene.join("node:server");
  coder = await scene.join("agent:coder");
  await until(() => coder.can("node:server udp:80").allowed);
});
afterAll(async () => {
  await scene.end();
  service.close();
});

const WAYS: Record<string, { host: string; open(side: "client" | "server"): Socket }> = {
  "node:dgram": { host: "127.0.0.1", open: () => createSocket("udp4") },
  overlay: { host: "server", open: (side) => (side === "client" ? coder : server).udp() },
};

for (const [name, { host, open }] of Object.entries(WAYS)) {
  describe(`over ${name}`, () => {
    const echoing = async (): Promise<[Socket, number]> => {
      const socket = open("server");
      socket.on("message", (bytes, { port, address }) => socket.send(bytes, port, address));
      const listening = once(socket, "listening");
      socket.bind(0);
      await listening;
      return [socket, socket.address().port];
    };

    test("a question and its answer, with who sent it", async () => {
      const [far, port] = await echoing();
      const socket = open("client");
      const answered = once(socket, "message") as Promise<[Buffer, RemoteInfo]>;
      const sent = await new Promise((resolve) => socket.send("hello", port, host, (_, bytes) => resolve(bytes)));
      expect(sent).toBe(5);
      const [bytes, info] = await answered;
      expect(bytes.toString()).toBe("hello");
      expect(info).toMatchObject({ port, size: 5, family: expect.stringMatching(/^IPv[46]$/) });
      await Promise.all([socket, far].map((each) => each[Symbol.asyncDispose]()));
    });

    test("every form of send; 9,000 bytes arrive whole", async () => {
      const [far, port] = await echoing();
      const socket = open("client");
      const got: string[] = [];
      socket.on("message", (bytes) => got.push(bytes.toString()));
      const message = Buffer.from("0123456789");
      socket.send(message, 2, 3, port, host);
      await until(() => got.length === 1);
      socket.send([message.subarray(0, 2), "x"], port, host);
      socket.send(new Uint8Array([65, 66]), port, host);
      await until(() => got.length === 3);
      socket.connect(port, host);
      await once(socket, "connect");
      expect(socket.remoteAddress()).toMatchObject({ port });
      socket.send(message);
      socket.send(message, 1, 2);
      socket.send("z".repeat(9_000));
      await until(() => got.length === 6);
      expect(got).toEqual(["234", "01x", "AB", "0123456789", "12", "z".repeat(9_000)]);
      socket.disconnect();
      expect(() => socket.remoteAddress()).toThrow(expect.objectContaining({ code: "ERR_SOCKET_DGRAM_NOT_CONNECTED" }));
      socket.close();
      expect(() => socket.close()).toThrow(expect.objectContaining({ code: "ERR_SOCKET_DGRAM_NOT_RUNNING" }));
      far.close();
      await once(far, "close");
    });

    test("a connected socket hears its far end alone", async () => {
      const [far, port] = await echoing();
      const [other] = await echoing();
      const socket = open("client");
      socket.bind(40_000);
      await once(socket, "listening");
      const { port: own } = socket.address();
      socket.connect(port, host);
      await once(socket, "connect");
      const got: string[] = [];
      socket.on("message", (bytes) => got.push(bytes.toString()));
      const back = name === "overlay" ? coder.addresses[0]! : host;
      other.send("from a stranger", own, back);
      await delay(30);
      socket.send("own");
      await until(() => got.length === 1);
      expect(got).toEqual(["own"]);
      for (const each of [socket, far, other]) each.close();
    });

    test("a port that is taken, and one too large a datagram, are errors with a code", async () => {
      const [far, port] = await echoing();
      const again = open("server");
      again.bind(port);
      expect((await once(again, "error"))[0]).toMatchObject({ code: "EADDRINUSE" });
      const socket = open("client");
      const error = await new Promise((resolve) => socket.send(Buffer.alloc(70_000), port, host, resolve));
      expect(error).toMatchObject({ code: "EMSGSIZE" });
      for (const each of [socket, far, again]) each.close();
    });
  });
}

test("a service behind a gateway answers, by name", async () => {
  const socket = coder.udp();
  const answered = once(socket, "message");
  socket.send("ping", 7, "echo");
  expect((await answered)[0].toString()).toBe("ping");
  socket.close();
});

test("what is denied is the send's error, with id and hint; multicast is ENOTSUP", async () => {
  const socket = coder.udp();
  const error = await new Promise((resolve) => socket.send("x", 53, "gw", resolve));
  expect(error).toMatchObject({ code: "EACCES", syscall: "send", reason: "NO_GRANT", denialId: expect.any(String) });
  expect((error as { hint: string }).hint).toContain("grant");
  const failed = once(socket, "error");
  socket.send("x", 53, "10.20.0.9");
  expect((await failed)[0].hint).toContain('"10.20.0.9 udp:53"');
  expect(() => socket.addMembership("224.0.0.1")).toThrow(expect.objectContaining({ code: "ENOTSUP" }));
  socket.close();
});
