import { expect, test } from "vitest";
import { type Address, type Endpoint, formatAddress, isV4 } from "../../src/base/address.ts";
import { concatBytes, readU16, writeU16 } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { OverlayDns } from "../../src/peer/overlay-dns.ts";
import { FakeStack, type FakeUdpSocket, TestTurns } from "./fake-stack.ts";
import { address } from "./world.ts";

const SERVERS = ["10.0.0.53", "10.0.1.53"].map(address);

/** Answers as `zone` says: an A record, nothing for AAAA; undefined is silence. */
function setup(zone: (name: string, server: string) => string | undefined, searchDomains: readonly string[] = []) {
  const turns = new TestTurns();
  const stack = new FakeStack(turns);
  const asked: string[] = [];
  const ports = new Set<number>();
  const ids = new Set<number>();
  const servers = SERVERS.map((server) => stack.bindUdp({ address: server, port: 53 }) as FakeUdpSocket);
  const answer = (server: FakeUdpSocket, from: Endpoint, question: Uint8Array, reply: FakeUdpSocket = server): void => {
    const labels: string[] = [];
    let at = 12;
    for (let size = question[at]!; size > 0; size = question[at]!) {
      labels.push(Buffer.from(question.subarray(at + 1, at + 1 + size)).toString());
      at += size + 1;
    }
    const type = readU16(question, at + 1);
    const name = labels.join(".");
    asked.push(`${name} ${type} @${formatAddress(server.local.address)}`);
    ports.add(from.port);
    ids.add(readU16(question, 0));
    const found = zone(name, formatAddress(server.local.address));
    if (found === undefined) return;
    const head = question.slice(0, at + 5);
    writeU16(head, 2, 0x8180);
    writeU16(head, 6, type === 1 && found !== "" ? 1 : 0);
    head[11] = 0;
    const data = Uint8Array.of(0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...found.split(".").map(Number));
    reply.send(0, from, type === 1 && found !== "" ? concatBytes(head, data) : head);
  };
  for (const server of servers) server.onDatagram = (from, bytes) => answer(server, from, bytes);
  const dns = new OverlayDns({
    stack,
    turns,
    localAddressFor: (remote: Address) => (isV4(remote) ? address("10.0.0.2") : undefined),
    servers: SERVERS,
    searchDomains,
    random: new SeededRandom(1),
    tryMaxMs: 30,
  });
  const resolve = async (name: string) => (await dns.resolve(name, new AbortController().signal)).map(formatAddress);
  return { dns, resolve, asked, ports, ids, stack, servers, answer };
}

test("a name is asked of the first server, and its addresses of a usable family are the answer", async () => {
  const { resolve, asked } = setup(() => "10.1.2.3");
  expect(await resolve("db.lan")).toEqual(["10.1.2.3"]);
  expect(asked).toEqual(["db.lan 28 @10.0.0.53", "db.lan 1 @10.0.0.53"]);
});

test("a silent server is followed by the next, each twice, and then the name doesn't resolve", async () => {
  const second = setup((_name, server) => (server === "10.0.1.53" ? "10.1.2.3" : undefined));
  expect(await second.resolve("db.lan")).toEqual(["10.1.2.3"]);
  const silent = setup(() => undefined);
  expect(await silent.resolve("db.lan")).toEqual([]);
  expect(silent.asked.filter((line) => line.includes(" 1 "))).toHaveLength(4);
});

test("search domains come first for a name without a dot, last for one with", async () => {
  const short = setup((name) => (name === "db.corp.lan" ? "10.1.2.3" : ""), ["x.lan", "corp.lan"]);
  expect(await short.resolve("db")).toEqual(["10.1.2.3"]);
  expect(short.asked.map((line) => line.split(" ")[0])).toEqual(["db.x.lan", "db.x.lan", "db.corp.lan", "db.corp.lan"]);
  const dotted = setup((name) => (name === "db.y" ? "10.1.2.4" : ""), ["corp.lan"]);
  expect(await dotted.resolve("db.y")).toEqual(["10.1.2.4"]);
  expect(dotted.asked[0]).toContain("db.y ");
});

test("ids and ports are new for each question", async () => {
  const { resolve, ports, ids } = setup(() => "10.1.2.3");
  for (let i = 0; i < 20; i++) await resolve(`n${i}.lan`);
  expect(ports.size).toBeGreaterThan(38);
  expect(ids.size).toBeGreaterThan(38);
});

test("an answer from elsewhere, or to another question, is dropped and counted while the wait goes on", async () => {
  const world = setup(() => "6.6.6.6");
  const [first] = world.servers;
  const impostor = world.stack.bindUdp({ address: address("10.0.0.66"), port: 53 }) as FakeUdpSocket;
  first!.onDatagram = (from, bytes) => world.answer(first!, from, bytes, impostor);
  world.servers[1]!.onDatagram = (from, bytes) => {
    const wrong = bytes.slice();
    wrong[0]! ^= 1;
    world.answer(world.servers[1]!, from, wrong);
  };
  expect(await world.resolve("db.lan")).toEqual([]);
  expect(world.dns.counters["dns-drop-other-question"]).toBeGreaterThan(0);
  expect(world.dns.counters["dns-drop-other-id"]).toBeGreaterThan(0);
});

test("an abort ends the wait at once", async () => {
  const { dns } = setup(() => undefined);
  const controller = new AbortController();
  const resolving = dns.resolve("db.lan", controller.signal);
  controller.abort();
  expect(await resolving).toEqual([]);
});
