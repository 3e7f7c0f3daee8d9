// The resolver over the real userspace stack, asked by another one that stands for the host: UDP, TCP, and each bound
// at its limit + 1.
import { afterEach, expect, test } from "vitest";
import { type Endpoint, formatAddress } from "../../../src/base/address.ts";
import { concatBytes, readU16 } from "../../../src/base/bytes.ts";
import {
  RESOLVER_CLIENTS_MAX,
  RESOLVER_QUERIES_PER_TURN_MAX,
  RESOLVER_QUERY_MAX_BYTES,
} from "../../../src/base/limits.ts";
import { SeededRandom } from "../../../src/base/random.ts";
import type { NetmapView } from "../../../src/control/netmap.ts";
import type { TcpCloseReason, TcpConnection } from "../../../src/netstack/contract.ts";
import { UserspaceStack } from "../../../src/netstack/stack.ts";
import { resolverAddressesOf } from "../../../src/peer/tun/overlay-names.ts";
import { OverlayResolver } from "../../../src/peer/tun/overlay-resolver.ts";
import type { Turns } from "../../../src/peer/turns.ts";
import { decodeDnsAnswer } from "../../../src/wire/dns.ts";
import { queryFor } from "../../wire/dns-bytes.ts";
import { address, GW_ADDRESS, netmapOf, STAGING_ADDRESS, until } from "../world.ts";

const FOREIGN = "fd00:17::bad";
const AAAA = 28;

/** Two stacks and a wire: each turn ends when nothing is left on it. */
class Wire implements Turns {
  readonly host: UserspaceStack;
  readonly peer: UserspaceStack;
  readonly #queue: { to: UserspaceStack; bytes: Uint8Array }[] = [];
  #depth = 0;

  constructor() {
    const output = (to: () => UserspaceStack) => (_now: number, buffer: Uint8Array, offset: number, length: number) =>
      void this.#queue.push({ to: to(), bytes: buffer.slice(offset, offset + length) });
    const options = { mtuBytes: 1420 };
    this.host = new UserspaceStack({
      ...options,
      random: new SeededRandom(1),
      handler: { output: output(() => this.peer) },
    });
    this.peer = new UserspaceStack({
      ...options,
      random: new SeededRandom(2),
      handler: { output: output(() => this.host) },
    });
    this.host.setLocalAddresses([GW_ADDRESS, "10.99.0.6", FOREIGN].map(address));
  }

  nowMs(): number {
    return performance.timeOrigin + performance.now();
  }

  turn<T>(work: (nowMs: number) => T): T {
    this.#depth++;
    try {
      return work(this.nowMs());
    } finally {
      if (this.#depth === 1) {
        for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift())
          next.to.handlePacket(this.nowMs(), next.bytes, 0, next.bytes.length);
        for (const stack of [this.host, this.peer])
          if (stack.nextDeadlineMs() <= this.nowMs()) stack.handleTimeout(this.nowMs());
      }
      this.#depth--;
    }
  }
}

const opened: OverlayResolver[] = [];
afterEach(() => {
  for (const resolver of opened.splice(0)) resolver.close();
});

function start(change: Partial<NetmapView> = {}, idleMs = 60_000) {
  const wire = new Wire();
  const own = netmapOf({ ...change });
  const view = {
    now: { ...own, self: { ...own.self, addresses: [GW_ADDRESS, "10.99.0.6"] }, ...change } as NetmapView | undefined,
  };
  const addresses = resolverAddressesOf(view.now!);
  wire.peer.setLocalAddresses(addresses);
  const resolver = OverlayResolver.open({ stack: wire.peer, turns: wire, netmap: () => view.now, addresses, idleMs });
  opened.push(resolver);
  return { wire, resolver, view, remotes: addresses.map((each): Endpoint => ({ address: each, port: 53 })) };
}

type Started = ReturnType<typeof start>;

/** What comes back by UDP, if anything does. */
function udp({ wire, remotes }: Started, bytes: Uint8Array, from = GW_ADDRESS, to = 0): Uint8Array | undefined {
  const socket = wire.host.bindUdp({ address: address(from), port: 0 })!;
  let got: Uint8Array | undefined;
  socket.onDatagram = (_remote, reply) => {
    got = reply.slice();
  };
  wire.turn((nowMs) => socket.send(nowMs, remotes[to]!, bytes));
  socket.close();
  return got;
}

class Client {
  closed: TcpCloseReason | undefined;
  readonly connection: TcpConnection;
  #bytes: Uint8Array = new Uint8Array(0);
  readonly #wire: Wire;

  constructor({ wire, remotes }: Started, from = GW_ADDRESS) {
    this.#wire = wire;
    this.connection = wire.turn((nowMs) =>
      wire.host.connectTcp(nowMs, address(from), remotes[0]!, {
        readable: () => this.read(),
        writable: () => undefined,
        closed: (reason) => {
          this.closed = reason;
        },
      }),
    )!;
  }

  read(): void {
    this.#wire.turn((nowMs) => {
      const chunk = this.connection.read(nowMs, 65_535);
      if (chunk !== undefined) this.#bytes = concatBytes(this.#bytes, chunk);
    });
  }

  write(...parts: readonly Uint8Array[]): void {
    this.#wire.turn((nowMs) => this.connection.write(nowMs, concatBytes(...parts)));
  }

  /** Whole messages so far. */
  messages(): Uint8Array[] {
    const found: Uint8Array[] = [];
    for (let at = 0; at + 2 <= this.#bytes.length; ) {
      const end = at + 2 + readU16(this.#bytes, at);
      if (end > this.#bytes.length) break;
      found.push(this.#bytes.subarray(at + 2, end));
      at = end;
    }
    return found;
  }
}

const framed = (message: Uint8Array): Uint8Array =>
  concatBytes(Uint8Array.of(message.length >> 8, message.length & 255), message);
const question = (id = 7) => ({ id, name: "staging.test.internal", type: AAAA }) as const;
const asked = (id = 7): Uint8Array => queryFor("staging.test.internal", AAAA, { id });
function addressesIn(bytes: Uint8Array | undefined, id = 7): string[] | string {
  const answer = decodeDnsAnswer(bytes!, question(id));
  return answer.kind === "addresses" ? answer.addresses.map(formatAddress) : answer.kind;
}

test("a name is answered over UDP at either address, and by TCP", () => {
  const all = start();
  expect(all.remotes.map((remote) => formatAddress(remote.address))).toEqual(["fd00:17::53", "10.99.0.0"]);
  expect(addressesIn(udp(all, asked()))).toEqual([STAGING_ADDRESS]);
  expect(addressesIn(udp(all, asked(), "10.99.0.6", 1))).toEqual([STAGING_ADDRESS]);
  const client = new Client(all);
  client.write(framed(asked()));
  expect(client.messages().map((message) => addressesIn(message))).toEqual([[STAGING_ADDRESS]]);
});

test("the next netmap is what the next question is answered from; before the first there is no answer to give", () => {
  const all = start();
  all.view.now = { ...all.view.now!, services: [] };
  expect(addressesIn(udp(all, asked()))).toBe("none");
  all.view.now = undefined;
  expect(decodeDnsAnswer(udp(all, asked())!, question())).toEqual({ kind: "failed", code: 2 });
});

test("another peer's packets are not answered, whatever let them in", () => {
  const all = start();
  expect(udp(all, asked(), FOREIGN)).toBeUndefined();
  const client = new Client(all, FOREIGN);
  client.write(framed(asked()));
  expect(client.closed).toBe("reset");
  expect(all.resolver.counters).toEqual({ foreign: 2 });
});

test("what is too much for a datagram comes by TCP, whole", () => {
  const gateways = Array.from({ length: 100 }, (_, i) => ({ session: "s_x", address: `fd00:17:0:2::${i + 1}` }));
  const [staging] = netmapOf().services;
  const all = start({ services: [{ ...staging!, gateways }] });
  expect(addressesIn(udp(all, asked()))).toBe("truncated");
  const client = new Client(all);
  client.write(framed(asked()));
  expect(addressesIn(client.messages()[0])).toHaveLength(100);
});

test("questions in one stream, cut anywhere, are answered in order", () => {
  const all = start();
  const stream = concatBytes(...[1, 2, 3].map((id) => framed(asked(id))));
  const client = new Client(all);
  for (const byte of stream) client.write(Uint8Array.of(byte));
  expect(client.messages().map((message) => readU16(message, 0))).toEqual([1, 2, 3]);
});

test("a client that ends its side gets its answers, and the connection ends", () => {
  const all = start();
  const client = new Client(all);
  client.write(framed(asked()));
  all.wire.turn((nowMs) => client.connection.end(nowMs));
  expect(client.messages()).toHaveLength(1);
  expect(client.connection.remoteEnded).toBe(true);
});

test("a flood of one connection is answered over several turns, all of it", async () => {
  const all = start();
  const client = new Client(all);
  const count = RESOLVER_QUERIES_PER_TURN_MAX + 1;
  client.write(...Array.from({ length: count }, (_, i) => framed(asked(i))));
  expect(client.messages()).toHaveLength(RESOLVER_QUERIES_PER_TURN_MAX);
  await until(() => client.messages().length === count);
});

/** Takes at most 100 bytes at a time. */
function narrow(connection: TcpConnection): TcpConnection {
  return new Proxy(connection, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key);
      if (key !== "write") return typeof value === "function" ? value.bind(target) : value;
      return (nowMs: number, bytes: Uint8Array) => {
        setImmediate(() => target.handler.writable());
        return target.write(nowMs, bytes.subarray(0, 100));
      };
    },
    set: (target, key, value) => Reflect.set(target, key, value),
  });
}

test("an answer that the stack takes in parts comes whole, before the next one", async () => {
  const all = start();
  const { peer } = all.wire;
  const listenTcp: UserspaceStack["listenTcp"] = (at, on) => peer.listenTcp(at, (one) => on(narrow(one)));
  all.resolver.close();
  const stack = { bindUdp: peer.bindUdp.bind(peer), unlistenTcp: peer.unlistenTcp.bind(peer), listenTcp };
  const addresses = resolverAddressesOf(all.view.now!);
  const [staging] = netmapOf().services;
  const gateways = Array.from({ length: 20 }, (_, i) => ({ session: "s_x", address: `fd00:17:0:2::${i + 1}` }));
  all.view.now = { ...all.view.now!, services: [{ ...staging!, gateways }] };
  opened.push(OverlayResolver.open({ stack, turns: all.wire, netmap: () => all.view.now, addresses }));
  const client = new Client(all);
  client.write(...[1, 2, 3].map((id) => framed(asked(id))));
  await until(() => client.messages().length === 3);
  expect(client.messages().map((message, i) => addressesIn(message, i + 1).length)).toEqual([20, 20, 20]);
});

test("a question beyond the most bytes is dropped, by TCP with its connection", () => {
  const all = start();
  const padded = (bytes: number): Uint8Array => concatBytes(asked(), new Uint8Array(bytes - asked().length));
  expect(udp(all, padded(RESOLVER_QUERY_MAX_BYTES))).toBeDefined(); // a format error
  expect(all.resolver.counters).toEqual({ "failed-1": 1 });
  expect(udp(all, padded(RESOLVER_QUERY_MAX_BYTES + 1))).toBeUndefined();
  expect(all.resolver.counters).toEqual({ "failed-1": 1, "too-long": 1 });
  const client = new Client(all);
  client.write(framed(padded(RESOLVER_QUERY_MAX_BYTES)));
  expect(client.messages()).toHaveLength(1);
  client.write(framed(padded(RESOLVER_QUERY_MAX_BYTES + 1)).subarray(0, 2)); // its length alone
  expect(client.closed).toBe("reset");
});

test("one connection more than there may be: the one silent longest gives way", () => {
  const all = start();
  const clients = Array.from({ length: RESOLVER_CLIENTS_MAX }, () => new Client(all));
  clients[0]!.write(framed(asked())); // so the second is silent longest
  const next = new Client(all);
  next.write(framed(asked()));
  expect(clients.map((client) => client.closed).filter(Boolean)).toEqual(["reset"]);
  expect(clients[1]!.closed).toBe("reset");
  expect(next.messages()).toHaveLength(1);
  expect(all.resolver.counters["client-gave-way"]).toBe(1);
});

test("a connection without a whole question for a while is closed, however it trickles", async () => {
  const all = start({}, 30);
  const client = new Client(all);
  client.write(Uint8Array.of(2, 0)); // a question of 512 bytes
  const timer = setInterval(() => client.write(Uint8Array.of(0)), 20);
  await until(() => client.closed === "reset");
  clearInterval(timer);
  expect(all.resolver.counters["client-silent"]).toBe(1);
});

test("a reply by UDP or TCP is none to answer", () => {
  const all = start();
  const reply = queryFor("staging.test.internal", AAAA, { flags: 0x8180 });
  expect(udp(all, reply)).toBeUndefined();
  const client = new Client(all);
  client.write(framed(reply));
  expect(client.closed).toBe("reset");
  expect(all.resolver.counters).toEqual({ reply: 2 });
});

test("closed, its port is free again; taken, it says so and leaves what was there", () => {
  const all = start();
  const { wire, view } = all;
  const options = { stack: wire.peer, turns: wire, netmap: () => view.now, addresses: resolverAddressesOf(view.now!) };
  expect(() => OverlayResolver.open(options)).toThrow("is taken");
  const client = new Client(all);
  client.write(framed(asked()));
  expect(client.messages()).toHaveLength(1);
  all.resolver.close();
  expect(client.closed).toBe("reset");
  const udpSocket = wire.peer.bindUdp(all.remotes[0]!)!;
  expect(() => OverlayResolver.open(options)).toThrow("is taken");
  udpSocket.close();
  wire.peer.listenTcp(all.remotes[1]!, () => undefined);
  expect(() => OverlayResolver.open(options)).toThrow("is taken");
  wire.peer.unlistenTcp(all.remotes[1]!);
  opened.push(OverlayResolver.open(options));
  expect(addressesIn(udp(all, asked()))).toEqual([STAGING_ADDRESS]);
});
