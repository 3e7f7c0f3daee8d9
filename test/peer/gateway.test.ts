import { createSocket } from "node:dgram";
import { afterEach, expect, test } from "vitest";
import { formatEndpoint } from "../../src/base/address.ts";
import {
  FLOW_IDLE_UDP_MS,
  GATEWAY_DIALS_PER_SESSION_MAX,
  GATEWAY_UDP_FLOWS_PER_SESSION_MAX,
  GATEWAY_UDP_QUEUE_DATAGRAMS_MAX,
} from "../../src/base/limits.ts";
import type { Gateway } from "../../src/peer/gateway.ts";
import { encodeNameDialRequest } from "../../src/peer/name-dial.ts";
import { DialError } from "../../src/peer/overlay.ts";
import type { OverlaySocket } from "../../src/peer/overlay-socket.ts";
import type { RealUdp } from "../../src/peer/real-network.ts";
import { address, CODER, CODER_ADDRESS, GW_ADDRESS, listen, netmapOf, STAGING_ADDRESS, until, World } from "./world.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

async function failure(dial: Promise<OverlaySocket>): Promise<DialError> {
  try {
    (await dial).destroy();
  } catch (error) {
    if (error instanceof DialError) return error;
    throw error;
  }
  throw new Error("it connected");
}

/** A service that echoes, and counts who came. */
async function echo() {
  const service = await listen((socket) => socket.pipe(socket));
  cleanups.push(() => service.close());
  return service;
}

async function say(socket: OverlaySocket, text: string): Promise<string> {
  socket.write(text);
  let got = "";
  socket.on("data", (chunk) => {
    got += chunk;
  });
  await until(() => got.length >= text.length);
  socket.removeAllListeners("data");
  return got;
}

const dialled: string[] = [];

/** A network where every dial is noted and fails with the code. */
function failing(code: string) {
  dialled.length = 0;
  return {
    connectTcp: async (to: Parameters<typeof formatEndpoint>[0]) => {
      dialled.push(formatEndpoint(to));
      throw Object.assign(new Error(code), { code });
    },
  };
}

test("loopback is dialled for --serve NAME=127.0.0.1:PORT alone, not for all or NAME", async () => {
  const service = await echo();
  const serves = [
    {
      name: "staging",
      address: STAGING_ADDRESS,
      host: "127.0.0.1",
      protocol: "tcp" as const,
      ports: [[1, 65535]] as [[number, number]],
    },
  ];
  const services = [{ ...netmapOf().services[0]!, ports: [[1, 65535]] as [[number, number]] }];
  const target = { host: "staging", port: service.port };
  for (const offers of [{ serveAll: true }, { serves: new Map([["staging", undefined]]) }]) {
    const world = new World();
    world.map = netmapOf({ serves, services });
    world.gateway(offers);
    expect((await failure(world.dialer().dial(target))).kind).toBe("denied");
    expect(world.denials[0]).toMatchObject({ reason: "DIAL_REFUSED", ruleId: "LOOPBACK" });
  }
  const world = new World();
  world.map = netmapOf({ serves, services });
  world.gateway({ serves: new Map([["staging", { host: "127.0.0.1", port: service.port }]]) });
  const socket = await world.dialer().dial(target);
  expect(await say(socket, "hello")).toBe("hello");
  socket.destroy();
});

test("a metadata address is dialled for a service that names it, and for nothing else", async () => {
  const serves = [{ ...netmapOf().serves[0]!, host: "169.254.169.254" }];
  const world = new World();
  world.map = netmapOf({ serves });
  world.gateway({ serveAll: true, routes: world.transitAll() }, failing("ECONNREFUSED"));
  expect((await failure(world.dialer().dial({ host: "staging", port: 80 }))).kind).toBe("refused");
  expect(dialled).toEqual(["169.254.169.254:80"]);
  expect((await failure(world.dialer().dial({ host: "169.254.169.254", port: 80 }))).kind).toBe("denied");
  expect(dialled).toHaveLength(1);
});

test("a name in a service's `at` exempts nothing: what it resolves to is judged", async () => {
  const serves = [{ ...netmapOf().serves[0]!, host: "metadata.internal" }];
  const world = new World();
  world.map = netmapOf({ serves });
  world.gateway({ serveAll: true }, { ...failing("ECONNREFUSED"), resolve: async () => [address("169.254.169.254")] });
  expect((await failure(world.dialer().dial({ host: "staging", port: 80 }))).kind).toBe("denied");
  expect(dialled).toEqual([]);
});

test("of a name's addresses those refused or under never are left out, the others tried in order", async () => {
  const world = new World();
  world.never = ["10.30.0.0/16"];
  const answers = ["127.0.0.1", "10.30.0.5", "10.20.0.7", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "10.20.0.8"];
  world.gateway({ hostPatterns: ["*"] }, { ...failing("ECONNREFUSED"), resolve: async () => answers.map(address) });
  expect((await failure(world.dialer().dial({ host: "db.internal", port: 80 }))).kind).toBe("refused");
  expect(dialled).toEqual(["10.20.0.7:80", "10.20.0.8:80"]);
});

test("a name whose every address is refused is denied, with the gateway's own record", async () => {
  const world = new World();
  world.gateway({ hostPatterns: ["*"] }, { ...failing("ECONNREFUSED"), resolve: async () => [address("127.0.0.1")] });
  const error = await failure(world.dialer().dial({ host: "rebind.internal", port: 22 }));
  expect(error.kind).toBe("denied");
  expect(error.denialId).toBe("d_0000000000");
  expect(world.denials[0]).toMatchObject({ destination: "host:rebind.internal", port: 22, ruleId: "LOOPBACK" });
  expect(dialled).toEqual([]);
});

test("a name is resolved once and dialled by address", async () => {
  const world = new World();
  let asked = 0;
  world.gateway(
    { hostPatterns: ["*"] },
    { ...failing("EHOSTUNREACH"), resolve: async () => [address(asked++ === 0 ? "10.20.0.7" : "127.0.0.1")] },
  );
  expect((await failure(world.dialer().dial({ host: "db.internal", port: 80 }))).kind).toBe("unreachable");
  expect(asked).toBe(1);
  expect(dialled).toEqual(["10.20.0.7:80"]);
});

test.each([
  ["ECONNREFUSED", "refused", "refused"],
  ["EHOSTUNREACH", "host", "unreachable"],
  ["ENETUNREACH", "host", "unreachable"],
  ["EMFILE", "host", "unreachable"],
] as const)("%s is answered in kind: %s", async (code, answer, kind) => {
  const world = new World();
  world.gateway({ serveAll: true }, failing(code));
  expect((await failure(world.dialer().dial({ host: "staging", port: 80 }))).kind).toBe(kind);
  expect(world.stack.answers).toEqual([answer]);
});

test("a dial that hangs ends by time, and its abort reaches the real socket", async () => {
  const world = new World();
  let aborted = false;
  world.gateway(
    { serveAll: true },
    {
      connectTcp: (_to, _onLocal, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => {
            aborted = true;
            reject(Object.assign(new Error("aborted"), { code: "ABORT_ERR" }));
          });
        }),
    },
    100,
  );
  expect((await failure(world.dialer().dial({ host: "staging", port: 80 }))).kind).toBe("unreachable");
  expect(world.stack.answers).toEqual(["host"]);
  expect(aborted).toBe(true);
});

test("a name that doesn't resolve behind an allowed grant is said to be unresolved", async () => {
  const world = new World();
  world.gateway({ hostPatterns: ["*"] }, { ...failing("ECONNREFUSED"), resolve: async () => [] });
  expect((await failure(world.dialer().dial({ host: "nobody.internal", port: 80 }))).kind).toBe("unresolved");
});

test("what this host doesn't offer is not dialled, whatever the netmap says", async () => {
  const world = new World();
  const gateway = world.gateway({}, failing("ECONNREFUSED"));
  for (const host of ["staging", "10.20.0.5", "db.internal"]) await failure(world.dialer().dial({ host, port: 80 }));
  expect(dialled).toEqual([]);
  expect(gateway.counters["tcp-not-offered"]).toBe(3);
});

test("what the netmap didn't accept is not dialled, whatever this host offers", async () => {
  const world = new World();
  world.map = netmapOf({ serves: [], routes: [] });
  world.gateway({ serveAll: true, routes: world.transitAll(), hostPatterns: ["*"] }, failing("ECONNREFUSED"));
  for (const host of ["staging", "10.20.0.5", "db.internal"]) await failure(world.dialer().dial({ host, port: 80 }));
  expect(dialled).toEqual([]);
});

test("a name that the policy denies is denied without being resolved", async () => {
  const world = new World();
  let asked = 0;
  world.gateway({ hostPatterns: ["*"] }, { resolve: async () => [address(`10.20.0.${++asked}`)] });
  const dialer = world.dialer();
  const connecting = dialer.dial({ host: "secret.internal", port: 80 });
  world.allowedHost = () => false; // the source still thinks so
  const error = await failure(connecting);
  expect(error).toMatchObject({ kind: "denied", denialId: "d_0000000000" });
  expect(asked).toBe(0);
});

test("a source that is nobody's is prohibited", async () => {
  const world = new World();
  world.callers.clear();
  const gateway = world.gateway({ serveAll: true }, failing("ECONNREFUSED"));
  expect((await failure(world.dialer().dial({ host: "staging", port: 80 }))).kind).toBe("denied");
  expect(dialled).toEqual([]);
  expect(gateway.counters["tcp-no-caller"]).toBe(1);
});

test("a grant that ends while the dial is under way: the socket is dropped and the SYN prohibited", async () => {
  const service = await echo();
  const world = new World();
  let connected = 0;
  service.server.on("connection", () => connected++);
  const { hostNetwork } = await import("../../src/peer/real-network.ts");
  world.gateway(
    { serves: new Map([["staging", { host: "127.0.0.1", port: service.port }]]) },
    {
      connectTcp: async (...args) => {
        const local = await hostNetwork.connectTcp(...args);
        world.allowed = () => false;
        return local;
      },
    },
  );
  expect((await failure(world.dialer().dial({ host: "staging", port: 80 }))).kind).toBe("denied");
  expect(world.stack.answers).toEqual(["prohibited"]);
  await until(() => connected === 1);
});

test("the sender that gives up ends the dial, and nothing is answered", async () => {
  const world = new World();
  let signal: AbortSignal | undefined;
  const gateway = world.gateway(
    { serveAll: true },
    {
      connectTcp: (_to, _onLocal, given) =>
        new Promise((_resolve, reject) => {
          signal = given;
          given.addEventListener("abort", () => reject(Object.assign(new Error("aborted"), { code: "ABORT_ERR" })));
        }),
    },
  );
  const controller = new AbortController();
  const dial = failure(world.dialer().dial({ host: "staging", port: 80 }, controller.signal));
  await until(() => signal !== undefined);
  controller.abort();
  expect((await dial).kind).toBe("aborted");
  expect(signal!.aborted).toBe(true);
  await until(() => gateway.counters["tcp-dial-aborted"] === 1);
  expect(world.stack.answers).toEqual([]);
});

function openFlow(world: World): Promise<OverlaySocket> {
  return world.dialer().dial({ host: "staging", port: 80 });
}

async function served() {
  const world = new World();
  const sources: string[] = [];
  const answers: (string | undefined)[] = [];
  const holder: { gateway?: Gateway } = {};
  const service = await listen((socket) => {
    const from = { address: address(socket.remoteAddress!), port: socket.remotePort! };
    sources.push(formatEndpoint(from));
    answers.push(holder.gateway?.whoisDialled(from.address, from.port)?.caller.identity); // at its first moment
    socket.pipe(socket);
  });
  cleanups.push(() => service.close());
  const gateway = world.gateway({ serves: new Map([["staging", { host: "127.0.0.1", port: service.port }]]) });
  holder.gateway = gateway;
  return { world, gateway, service, sources, answers };
}

test("the service learns who called from the first moment until the flow ends", async () => {
  const { world, gateway, sources, answers } = await served();
  const socket = await openFlow(world);
  await say(socket, "hi");
  expect(answers).toEqual(["agent:coder"]);
  const [host, port] = sources[0]!.split(":");
  const who = () => gateway.whoisDialled(address(host!), Number(port));
  expect(who()).toMatchObject({
    caller: { session: CODER, sponsor: "user:ana@example.com" },
    target: "service:staging",
    destination: { address: address(STAGING_ADDRESS), port: 80 },
  });
  expect(gateway.whoisDialled(address(host!), Number(port) ^ 1)).toBeUndefined();
  socket.end();
  await until(() => world.flows.length === 1);
  expect(who()).toBeUndefined();
});

test("cutSession ends that session's flows at once, live ones and dials, and no other's", async () => {
  const { world, gateway } = await served();
  const socket = await openFlow(world);
  const closed = new Promise((resolve) => socket.on("error", resolve));
  expect(gateway.cutSession("s_another000000000")).toBe(0);
  expect(await say(socket, "still")).toBe("still");
  expect(gateway.cutSession(CODER)).toBe(1);
  expect(await closed).toMatchObject({ code: "ECONNRESET" });
  expect(world.flows[0]).toMatchObject({ end: "cut", bytesIn: 5, bytesOut: 5 });
});

test("a new netmap cuts what it no longer allows or serves, and nothing else", async () => {
  for (const change of [
    (world: World) => {
      world.allowed = () => false;
    },
    (world: World) => {
      world.map = netmapOf({ serves: [] });
    },
    (world: World) => {
      world.never = ["127.0.0.0/8"];
    },
    (world: World) => {
      world.callers.clear();
    },
  ]) {
    const { world, gateway } = await served();
    const socket = await openFlow(world);
    socket.on("error", () => undefined);
    world.map = netmapOf({ revision: 8 });
    expect(gateway.netmapChanged()).toBe(0);
    expect(await say(socket, "still")).toBe("still");
    change(world);
    expect(gateway.netmapChanged()).toBe(1);
    await until(() => socket.destroyed);
  }
});

test("dials in progress are bounded for each caller, another caller isn't affected", async () => {
  const world = new World();
  const gateway = world.gateway({ serveAll: true }, { connectTcp: () => new Promise(() => undefined) });
  const dialer = world.dialer();
  const controller = new AbortController();
  const hanging = Array.from({ length: GATEWAY_DIALS_PER_SESSION_MAX }, () =>
    failure(dialer.dial({ host: "staging", port: 80 }, controller.signal)),
  );
  await until(() => world.stack.openings.length === GATEWAY_DIALS_PER_SESSION_MAX);
  expect((await failure(dialer.dial({ host: "staging", port: 80 }))).kind).toBe("unreachable");
  expect(gateway.counters["tcp-dials-per-session"]).toBe(1);
  world.callers.set(CODER_ADDRESS, { session: "s_other00000000000", identity: "agent:other", sponsor: undefined });
  const other = failure(dialer.dial({ host: "staging", port: 80 }, controller.signal));
  await until(() => world.stack.openings.length === GATEWAY_DIALS_PER_SESSION_MAX + 2);
  expect(gateway.counters["tcp-dials-per-session"]).toBe(1);
  controller.abort();
  await Promise.all([...hanging, other]);
});

test("half a name-dial request, or a wrong one, is answered and never dialled", async () => {
  const world = new World();
  const gateway = world.gateway(
    { hostPatterns: ["*"] },
    { ...failing("ECONNREFUSED"), resolve: async () => [address("10.20.0.5")] },
  );
  const remote = { address: address(GW_ADDRESS), port: 51_822 };
  for (const bytes of [
    Uint8Array.of(9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9),
    encodeNameDialRequest({ name: "a", port: 1 }).subarray(0, 3),
  ]) {
    const answer: number[] = [];
    const connection = world.stack.connectTcp(0, address(CODER_ADDRESS), remote, {
      connected: () => {
        connection?.write(0, bytes);
        connection?.end(0);
      },
      readable: () => {
        answer.push(...(connection?.read(0, 100) ?? []));
      },
      writable: () => undefined,
      closed: () => undefined,
    });
    await until(() => answer.length >= 3);
    expect(answer.slice(0, 2)).toEqual([1, 6]);
  }
  expect(gateway.counters["name-bad-request"]).toBe(2);
  expect(dialled).toEqual([]);
});

test("--expose serves the own overlay port from the local target; other ports are refused", async () => {
  const service = await echo();
  const world = new World();
  world.gateway({ exposes: new Map([[8080, { host: "127.0.0.1", port: service.port }]]) });
  const socket = await world.dialer().dial({ host: "gw", port: 8080 });
  expect(await say(socket, "exposed")).toBe("exposed");
  socket.end();
  await until(() => world.flows.length === 1);
  expect(world.flows[0]).toMatchObject({ target: "expose:8080", caller: { session: CODER } });
  expect((await failure(world.dialer().dial({ host: "gw", port: 8081 }))).kind).toBe("refused");
});

function udpService() {
  const server = createSocket("udp4");
  server.on("message", (bytes, from) => server.send(bytes, from.port, from.address));
  cleanups.push(() => server.close());
  return new Promise<{ port: number; server: typeof server }>((resolve) =>
    server.bind(0, "127.0.0.1", () => resolve({ port: server.address().port, server })),
  );
}

const UDP_SERVE = [{ ...netmapOf().serves[0]!, protocol: "udp" as const, ports: [[53, 53]] as [[number, number]] }];

test("UDP datagrams go to the service and back, whois knows the flow, idleness ends it", async () => {
  const service = await udpService();
  const world = new World();
  world.map = netmapOf({ serves: UDP_SERVE });
  const gateway = world.gateway({ serves: new Map([["staging", { host: "127.0.0.1", port: service.port }]]) });
  const socket = world.stack.bindUdp({ address: address(CODER_ADDRESS), port: 0 })!;
  const got: string[] = [];
  socket.onDatagram = (_from, bytes) => got.push(Buffer.from(bytes).toString());
  let source: { address: string; port: number } | undefined;
  service.server.on("message", (_bytes, from) => {
    source = from;
  });
  const remote = { address: address(STAGING_ADDRESS), port: 53 };
  for (const text of ["one", "two"]) socket.send(0, remote, Buffer.from(text));
  await until(() => got.length === 2);
  expect(got).toEqual(["one", "two"]);
  expect(gateway.whoisDialled(address(source!.address), source!.port)?.caller.session).toBe(CODER);
  expect(world.stack.answers).toEqual(["accepted"]);
  gateway.close();
  expect(world.flows[0]).toMatchObject({ protocol: "udp", bytesIn: 6, bytesOut: 6, end: "cut", ruleId: "g1" });
  expect(FLOW_IDLE_UDP_MS).toBeGreaterThan(30_000);
});

test("a UDP target that the dial rules refuse is prohibited before anything is taken", async () => {
  const world = new World();
  world.map = netmapOf({ serves: [{ ...UDP_SERVE[0]!, host: "127.0.0.1" }] });
  world.gateway({ serveAll: true });
  const socket = world.stack.bindUdp({ address: address(CODER_ADDRESS), port: 0 })!;
  socket.send(0, { address: address(STAGING_ADDRESS), port: 53 }, Uint8Array.of(1));
  await until(() => world.stack.answers.length === 1);
  expect(world.stack.answers).toEqual(["prohibited"]);
  expect(world.denials[0]).toMatchObject({ protocol: "udp", ruleId: "LOOPBACK" });
});

test("UDP flows of one caller are bounded, and so are the datagrams that wait for the real socket", async () => {
  const world = new World();
  world.map = netmapOf({ serves: UDP_SERVE });
  const gateway = world.gateway({ serveAll: true }, { openUdp: () => new Promise<RealUdp>(() => undefined) });
  const remote = { address: address(STAGING_ADDRESS), port: 53 };
  for (let i = 0; i <= GATEWAY_UDP_FLOWS_PER_SESSION_MAX; i++) {
    world.stack.bindUdp({ address: address(CODER_ADDRESS), port: 1000 + i })!.send(0, remote, Uint8Array.of(1));
  }
  await until(() => world.stack.answers.length === GATEWAY_UDP_FLOWS_PER_SESSION_MAX + 1);
  expect(world.stack.answers.at(-1)).toBe("host");
  expect(gateway.counters["udp-flows-per-session"]).toBe(1);
  const first = world.stack.bindUdp({ address: address(CODER_ADDRESS), port: 1000 })!;
  for (let i = 0; i < GATEWAY_UDP_QUEUE_DATAGRAMS_MAX; i++) first.send(0, remote, Uint8Array.of(1));
  await until(() => gateway.counters["udp-queue-full"] === 1);
  gateway.close();
});
