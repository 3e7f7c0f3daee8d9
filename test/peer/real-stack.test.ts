// The shells over two real userspace stacks joined by a wire that loses packets: a local program through SOCKS5, the
// caller's stack, the gateway's stack and the gateway to a real service, byte-exact, and a UDP flow the same way.
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect } from "node:net";
import { afterEach, expect, test } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import type { TcpOpening, UdpOpening } from "../../src/netstack/contract.ts";
import { UserspaceStack } from "../../src/netstack/stack.ts";
import { Gateway } from "../../src/peer/gateway.ts";
import { type GatewayOffers, NO_OFFERS } from "../../src/peer/gateway-offers.ts";
import { StackDialer } from "../../src/peer/overlay-dialer.ts";
import { OwnerCheck } from "../../src/peer/owner.ts";
import { hostNetwork, type RealNetwork } from "../../src/peer/real-network.ts";
import { Socks5Server } from "../../src/peer/socks5.ts";
import type { Turns } from "../../src/peer/turns.ts";
import { address, CODER_ADDRESS, GW_ADDRESS, listen, netmapOf, STAGING_ADDRESS, until, World } from "./world.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

/** Two stacks; each turn ends with the wire delivering what was sent, a part of it lost. */
class Wire implements Turns {
  readonly caller: UserspaceStack;
  readonly gateway: UserspaceStack;
  onTcp: (opening: TcpOpening) => void = () => undefined;
  onUdp: (opening: UdpOpening) => void = () => undefined;
  readonly #queue: { to: UserspaceStack; bytes: Uint8Array }[] = [];
  readonly #random = new SeededRandom(77);
  readonly #loss: number;
  #depth = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(loss: number) {
    this.#loss = loss;
    const output = (to: () => UserspaceStack) => (_now: number, buffer: Uint8Array, offset: number, length: number) => {
      if (!this.#random.chance(this.#loss))
        this.#queue.push({ to: to(), bytes: buffer.slice(offset, offset + length) });
    };
    this.caller = new UserspaceStack({
      random: new SeededRandom(1),
      mtuBytes: 1420,
      isSettled: true,
      handler: { output: output(() => this.gateway) },
    });
    this.gateway = new UserspaceStack({
      random: new SeededRandom(2),
      mtuBytes: 1420,
      isSettled: true,
      handler: {
        output: output(() => this.caller),
        tcpOpening: (opening) => this.onTcp(opening),
        udpOpening: (opening) => this.onUdp(opening),
      },
    });
    this.caller.setLocalAddresses([address(CODER_ADDRESS)]);
    this.gateway.setLocalAddresses([address(GW_ADDRESS)]);
  }

  nowMs(): number {
    return performance.timeOrigin + performance.now();
  }

  turn<T>(work: (nowMs: number) => T): T {
    this.#depth++;
    try {
      return work(this.nowMs());
    } finally {
      this.#depth--;
      if (this.#depth === 0) this.#settle();
    }
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#queue.length = 0;
  }

  #settle(): void {
    this.#depth++;
    const nowMs = this.nowMs();
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      next.to.handlePacket(nowMs, next.bytes, 0, next.bytes.length);
      if (this.#queue.length === 0) for (const stack of [this.caller, this.gateway]) stack.settle(nowMs);
    }
    for (const stack of [this.caller, this.gateway]) {
      if (stack.nextDeadlineMs() <= nowMs) stack.handleTimeout(nowMs);
      stack.settle(nowMs);
    }
    this.#depth--;
    clearTimeout(this.#timer);
    const dueMs = Math.min(this.caller.nextDeadlineMs(), this.gateway.nextDeadlineMs());
    if (dueMs !== Number.POSITIVE_INFINITY || this.#queue.length > 0) {
      this.#timer = setTimeout(
        () => this.turn(() => undefined),
        Math.max(0, this.#queue.length > 0 ? 0 : dueMs - nowMs),
      );
    }
  }
}

async function joined(
  loss: number,
  offers: Partial<GatewayOffers>,
  network: Partial<RealNetwork> = {},
  world = new World(),
) {
  const wire = new Wire(loss);
  const gateway = new Gateway({
    view: world,
    turns: wire,
    offers: { ...NO_OFFERS, ...offers },
    network: { ...hostNetwork, ...network },
    onFlow: (flow) => world.flows.push(flow),
    dialTimeoutMs: 5_000,
  });
  wire.onTcp = (opening) => gateway.tcpOpening(opening);
  wire.onUdp = (opening) => gateway.udpOpening(opening);
  wire.gateway.setTransit(gateway.transitPrefixes());
  const dialer = new StackDialer({ view: world, stack: wire.caller, turns: wire });
  const socks = await Socks5Server.open({
    at: { address: address("127.0.0.1"), port: 0 },
    dialer,
    turns: wire,
    owner: new OwnerCheck("proc", 1, () => 1),
    onRefused: () => undefined,
  });
  cleanups.push(
    () => socks.close(),
    () => gateway.close(),
    () => wire.stop(),
  );
  return { world, wire, gateway, socks, dialer };
}

function request(socks: Socks5Server, name: string, port: number) {
  const socket = connect("port" in socks.at ? socks.at.port : 0, "127.0.0.1");
  socket.on("error", () => undefined);
  cleanups.push(() => socket.destroy());
  socket.write(Buffer.from([5, 1, 0, 5, 1, 0, 3, name.length, ...Buffer.from(name), port >> 8, port & 255]));
  const got: Buffer[] = [];
  const state = { length: 0, ended: false };
  socket.on("data", (chunk) => {
    got.push(chunk);
    state.length += chunk.length;
  });
  socket.on("end", () => {
    state.ended = true;
  });
  return { socket, state, bytes: () => Buffer.concat(got) };
}

test.each([0, 0.005])(
  "3 MB each way through SOCKS5, two stacks and the gateway, %f of the packets lost",
  async (loss) => {
    const service = await listen((socket) => socket.pipe(socket));
    cleanups.push(() => service.close());
    const { world, socks } = await joined(loss, {
      serves: new Map([["staging", { host: "127.0.0.1", port: service.port }]]),
    });
    const { socket, state, bytes } = request(socks, "staging", 80);
    const sent = Buffer.alloc(3_000_000);
    new SeededRandom(4).fill(sent);
    await until(() => state.length === 2 + 22, 15_000);
    expect(bytes()[3]).toBe(0);
    socket.end(sent);
    await until(() => state.ended, 15_000);
    const echoed = bytes().subarray(24);
    expect(createHash("sha256").update(echoed).digest("hex")).toBe(createHash("sha256").update(sent).digest("hex"));
    await until(() => world.flows.length === 1, 15_000);
    expect(world.flows[0]).toMatchObject({ bytesIn: 3_000_000, bytesOut: 3_000_000, end: "closed" });
  },
);

test("over real packets: refused is 5, unreachable 4, prohibited 2, and a name is dialled by the gateway", async () => {
  for (const [outcome, code] of [
    ["ECONNREFUSED", 5],
    ["EHOSTUNREACH", 4],
  ] as const) {
    const fail = async () => {
      throw Object.assign(new Error(outcome), { code: outcome });
    };
    const { socks } = await joined(0, { serveAll: true }, { connectTcp: fail });
    const { state, bytes } = request(socks, "staging", 80);
    await until(() => state.length === 12);
    expect(bytes()[3], outcome).toBe(code);
  }
  const world = new World();
  world.map = netmapOf({ serves: [{ ...netmapOf().serves[0]!, host: "127.0.0.1" }] });
  const { socks } = await joined(0, { serveAll: true }, {}, world);
  const { state, bytes } = request(socks, "staging", 80);
  await until(() => state.length === 12);
  expect(bytes()[3]).toBe(2);
  const named = await joined(0, { hostPatterns: ["*"] }, { resolve: async () => [] });
  const unresolved = request(named.socks, "nobody.internal", 80);
  await until(() => unresolved.state.length === 12);
  expect(unresolved.bytes()[3]).toBe(4);
});

test("UDP over two stacks reaches the service and comes back", async () => {
  const server = createSocket("udp4");
  server.on("message", (bytes, from) => server.send(bytes, from.port, from.address));
  await new Promise<void>((resolve) => server.bind(0, "127.0.0.1", resolve));
  cleanups.push(() => server.close());
  const world = new World();
  const ports: [number, number][] = [[53, 53]];
  world.map = netmapOf({ serves: [{ ...netmapOf().serves[0]!, protocol: "udp", ports }] });
  const serves = new Map([["staging", { host: "127.0.0.1", port: server.address().port }]]);
  const { wire, dialer } = await joined(0, { serves }, {}, world);
  const { socket, remote } = dialer.bindUdp({ host: STAGING_ADDRESS, port: 53 });
  const got: string[] = [];
  socket.onDatagram = (_from, bytes) => got.push(Buffer.from(bytes).toString());
  for (const text of ["one", "two", "x".repeat(5_000)]) {
    wire.turn((nowMs) => socket.send(nowMs, remote, Buffer.from(text)));
  }
  await until(() => got.length === 3);
  expect(got).toEqual(["one", "two", "x".repeat(5_000)]);
});
