// A tunnel inside a tunnel, ours in wireguard-go's and ours in ours, with packets that fit and packets that must be
// cut; and endpoints that lie inside the very prefixes that the tunnel carries: nothing goes round.
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { EngineEnd } from "../interop/engine-process.ts";
import { hashOfBlob } from "../interop/http-target.ts";
import { type Stock, type StockEnd, startStock } from "../interop/stock-wireguard.ts";
import { configText, curl, type Key, newKey, startHttp, startWirebadge } from "../interop/wg-scenario.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs } from "../needs.ts";
import type { Program } from "../scripts/program.ts";

const BYTES = 3_000_000;
const [OUTER_PORT, INNER_PORT] = [51_820, 51_821];
/**
 * Debian's: the newest sends what it has in one call for the kernel to segment (UDP_SEGMENT), which fails where one
 * datagram is larger than the MTU of the tunnel around it, and nothing is sent (conn/bind_std.go).
 */
const INNER = { net: "10.9.0", port: INNER_PORT, stock: "wireguard-go-debian" } as const;
const EVERYTHING = "0.0.0.0/0";

function linked(lab: Lab): [Namespace, Namespace] {
  const [a, b] = [lab.namespace("a"), lab.namespace("b")];
  lab.link({ namespace: a, addresses: ["10.1.0.1/24"] }, { namespace: b, addresses: ["10.1.0.2/24"] });
  return [a, b];
}

/** One wireguard-go among two or more: `host` is the last number of its address. */
function startLayer(
  namespace: Namespace,
  layer: {
    readonly net: string;
    readonly port: number;
    readonly own: Key;
    readonly peer: Key;
    readonly to?: string;
    readonly stock?: Stock;
  },
  host: 1 | 2,
): Promise<StockEnd> {
  const { net, port, own, peer, to, stock = "wireguard-go" } = layer;
  const peers = [{ publicKey: peer.publicKey, allowedIps: `${net}.${3 - host}/32`, endpoint: to }];
  return startStock(namespace, {
    stock,
    addresses: [`${net}.${host}/24`],
    config: configText({ privateKey: own.privateKey, listenPort: port, peers }),
  });
}

/** The kernel of `namespace` sends BYTES to our stack and gets their hash back: true when it is the right one. */
async function pour(namespace: Namespace, host: string): Promise<boolean> {
  const script = `const bytes = require("crypto").randomBytes(${BYTES});
    const to = { host: "${host}", port: 7000, allowHalfOpen: true };
    const socket = require("net").connect(to, () => socket.end(bytes));
    let answer = "";
    socket.on("data", (text) => { answer += text; }).on("end", () => {
      console.log(answer === require("crypto").createHash("sha256").update(bytes).digest("hex"));
      socket.end();
    });`;
  const run = await namespace.run(process.execPath, ["-e", script], { timeoutMs: 120_000 });
  return run.stdout.trim() === "true";
}

const all = needs("netns", "tun", "wg", "wireguard-go", "wireguard-go-debian", "curl");

describe.runIf(all).concurrent("a tunnel inside a tunnel", () => {
  test.each([
    ["fits", 1340],
    ["must be cut into fragments", 1420],
  ] as const)("ours in wireguard-go's, where a full packet %s: byte for byte, both ways", async (_what, mtu) => {
    await using lab = new Lab();
    const [a, b] = linked(lab);
    const [outerA, outerB, innerA, innerB] = [newKey(), newKey(), newKey(), newKey()];
    const outer = { net: "10.8.0", port: OUTER_PORT };
    await startLayer(b, { ...outer, own: outerB, peer: outerA }, 2);
    await startLayer(a, { ...outer, own: outerA, peer: outerB, to: `10.1.0.2:${OUTER_PORT}` }, 1);
    await startLayer(b, { ...INNER, own: innerB, peer: innerA }, 2);
    await startHttp(b);
    const endpoint = `10.8.0.2:${INNER_PORT}`;
    const peer = { publicKey: innerB.publicKey, allowedIps: "10.9.0.2/32", endpoint };
    const config = { privateKey: innerA.privateKey, address: "10.9.0.1/32", mtu, peers: [peer] };
    await startWirebadge(a, config, ["--socks", "127.0.0.1:1080"]);
    const down = `curl -sS --fail --socks5-hostname 127.0.0.1:1080 http://10.9.0.2:8000/blob/${BYTES} | sha256sum`;
    const got = await a.run("sh", ["-c", down], { timeoutMs: 120_000 });
    expect(got.stdout.split(" ")[0]).toBe(hashOfBlob(BYTES));
    const blob = `curl -sS http://[::1]:8000/blob/${BYTES}`;
    await startHttp(a);
    const up = `${blob} | curl -sS --fail --socks5-hostname 127.0.0.1:1080 -T - http://10.9.0.2:8000/hash`;
    expect((await a.run("sh", ["-c", up], { timeoutMs: 120_000 })).stdout).toBe(hashOfBlob(BYTES));
  });

  test("ours in ours, each allowed all addresses, its endpoint too: byte for byte, nothing goes round", async () => {
    await using lab = new Lab();
    const [a, b] = linked(lab);
    const [outerA, outerB, innerA, innerB] = [newKey(), newKey(), newKey(), newKey()];
    const outer = await startLayer(b, { net: "10.8.0", port: OUTER_PORT, own: outerB, peer: outerA }, 2);
    await startLayer(b, { ...INNER, own: innerB, peer: innerA }, 2);
    const peerTo = (key: Key, endpoint: string) => ({ publicKey: key.publicKey, allowedIps: [EVERYTHING], endpoint });
    const ours = await EngineEnd.start(a, {
      outer: {
        privateKey: outerA.privateKey,
        addresses: ["10.8.0.1"],
        mtuBytes: 1420,
        peers: [peerTo(outerB, `10.1.0.2:${OUTER_PORT}`)],
      },
      inner: {
        privateKey: innerA.privateKey,
        addresses: ["10.9.0.1"],
        mtuBytes: 1420,
        local: `10.8.0.1:${INNER_PORT}`,
        peers: [peerTo(innerB, `10.8.0.2:${INNER_PORT}`)],
      },
      pings: [["10.9.0.1", "10.9.0.2"]],
    });
    await ours.until("answers", (report) => report.pongsReceived > 0);
    expect(await pour(b, "10.9.0.1")).toBe(true);
    await ours.until("all answers", (report) => report.pingsSent === report.pongsReceived);
    const [moved] = (await outer.show("transfer")).values();
    const [, sent] = moved!.split("\t");
    expect(Number(sent)).toBeGreaterThan(BYTES);
    expect(Number(sent)).toBeLessThan(2 * BYTES); // went through the outer tunnel once, with two headers around it
  });
});

async function cpuSeconds(program: Program): Promise<number> {
  const stat = await readFile(`/proc/${program.pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100; // utime and stime in ticks
}

async function residentBytes(program: Program): Promise<number> {
  const status = await readFile(`/proc/${program.pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

/** Dials again and again into a tunnel that leads to nobody, and sees that it costs next to nothing. */
async function staysCheap(namespace: Namespace, program: Program, url: string): Promise<void> {
  await delay(2_000);
  const [cpu, memory] = [await cpuSeconds(program), await residentBytes(program)];
  for (let tries = 0; tries < 5; tries++) {
    const run = await curl(namespace, ["--max-time", "2", url], { check: false });
    expect(run.code).not.toBe(0);
  }
  expect((await cpuSeconds(program)) - cpu).toBeLessThan(2); // in ten seconds of the clock
  expect((await residentBytes(program)) - memory).toBeLessThan(40_000_000);
  expect(program.alive).toBe(true);
}

describe.runIf(all).concurrent("an endpoint inside what the tunnel carries", () => {
  test("all addresses are the peer's: outer datagrams stay outside, its endpoint is reached inside", async () => {
    await using lab = new Lab();
    const [a, b] = linked(lab);
    const [us, them] = [newKey(), newKey()];
    await startLayer(b, { net: "10.9.0", port: OUTER_PORT, own: them, peer: us }, 2);
    await startHttp(b);
    const peer = { publicKey: them.publicKey, allowedIps: `${EVERYTHING}, ::/0`, endpoint: `10.1.0.2:${OUTER_PORT}` };
    const config = { privateKey: us.privateKey, address: "10.9.0.1/32", peers: [peer] };
    await startWirebadge(a, config, ["--socks", "127.0.0.1:1080"]);
    for (const host of ["10.9.0.2", "10.1.0.2"]) {
      const { stdout } = await curl(a, ["--max-time", "30", `http://${host}:8000/`]);
      expect(stdout).toContain("10.9.0.1"); // came from inside
    }
  });

  test("the host routes it into a tunnel that leads back to us: no loop, no load", async () => {
    await using lab = new Lab();
    const a = lab.namespace("a");
    const [us, them] = [newKey(), newKey()];
    const stock = await startStock(a, {
      addresses: ["10.51.0.1/32"],
      config: configText({
        privateKey: them.privateKey,
        listenPort: OUTER_PORT,
        peers: [{ publicKey: us.publicKey, allowedIps: "10.50.0.0/16", endpoint: `127.0.0.1:${INNER_PORT}` }],
      }),
    });
    a.ip("route", "add", "10.50.0.0/16", "dev", stock.name);
    const peer = { publicKey: them.publicKey, allowedIps: "10.50.0.0/16", endpoint: `10.50.0.9:${OUTER_PORT}` };
    const config = { privateKey: us.privateKey, listenPort: INNER_PORT, address: "10.52.0.1/32", peers: [peer] };
    const program = await startWirebadge(a, config, ["--socks", "127.0.0.1:1080"]);
    await staysCheap(a, program, "http://10.50.0.77:8000/");
    const [moved] = (await stock.show("transfer")).values();
    for (const bytes of moved!.split("\t")) expect(Number(bytes)).toBeLessThan(100_000);
  });

  test("it is our own socket: no loop, no load", async () => {
    await using lab = new Lab();
    const [a] = linked(lab);
    const [us, them] = [newKey(), newKey()];
    const peer = { publicKey: them.publicKey, allowedIps: EVERYTHING, endpoint: `10.1.0.1:${OUTER_PORT}` };
    const config = { privateKey: us.privateKey, listenPort: OUTER_PORT, address: "10.9.0.1/32", peers: [peer] };
    const program = await startWirebadge(a, config, ["--socks", "127.0.0.1:1080"]);
    await staysCheap(a, program, "http://10.9.0.77:8000/");
  });
});
