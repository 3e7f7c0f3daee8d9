// Roaming of either end in mid-transfer, real processes, over our userspace stack and over a TUN device: one end's
// address, its port, and the outer family change while a TCP transfer runs through the tunnel; it goes on to its end,
// byte for byte. What the netns test of WireGuard shows of a ping, here of a stream [netns.sh, "roaming works"].
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { blocks, hashOfBlob } from "../interop/http-target.ts";
import { type StockEnd, startStock } from "../interop/stock-wireguard.ts";
import { configText, curl, newKey, startHttp, startWirebadge } from "../interop/wg-scenario.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { until } from "../scripts/program.ts";

const BYTES = 60_000_000;
const RATE = "4M"; // so that the transfer takes fifteen seconds
const PORT = 51_820;
const PATIENCE_MS = 180_000;
const URL = "http://10.9.0.2:8000";
let devices = 0; // their UAPI sockets lie in a folder that all namespaces share

type How = "SOCKS5" | "TUN";

interface Pair {
  readonly how: How;
  readonly a: Namespace;
  readonly b: Namespace;
  readonly stock: StockEnd;
  readonly ourKey: string;
}

/** Who roams has a persistent keepalive: nobody else can tell the other end where it is now. */
async function start(lab: Lab, how: How, roams: "ours" | "stock"): Promise<Pair> {
  const [a, b] = [lab.namespace("a"), lab.namespace("b")];
  lab.link(
    { namespace: a, addresses: ["10.1.0.1/24", "fd01::1/64"] },
    { namespace: b, addresses: ["10.1.0.2/24", "fd01::2/64"] },
  );
  const [us, them] = [newKey(), newKey()];
  const stock = await startStock(b, {
    addresses: ["10.9.0.2/24"],
    config: configText({
      privateKey: them.privateKey,
      listenPort: PORT,
      peers: [{ publicKey: us.publicKey, allowedIps: "10.9.0.1/32", ...(roams === "stock" ? { keepalive: 2 } : {}) }],
    }),
  });
  await startHttp(b);
  const peer = { publicKey: them.publicKey, allowedIps: "10.9.0.2/32", endpoint: `10.1.0.2:${PORT}` };
  await startWirebadge(
    a,
    {
      privateKey: us.privateKey,
      listenPort: PORT,
      address: "10.9.0.1/32",
      peers: [{ ...peer, ...(roams === "ours" ? { keepalive: 2 } : {}) }],
    },
    how === "SOCKS5" ? ["--socks", "127.0.0.1:1080"] : ["--tun", `wbr${process.pid}x${devices++}`],
  );
  return { how, a, b, stock, ourKey: us.publicKey };
}

/** Bytes that the stock end has moved in the busy direction. */
async function moved({ stock, ourKey }: Pair, direction: "download" | "upload"): Promise<number> {
  const [received, sent] = ((await stock.show("transfer")).get(ourKey) ?? "").split("\t");
  return Number(direction === "download" ? sent : received);
}

/** The transfer, with each step taken after its share of the bytes. */
async function transfer(
  pair: Pair,
  direction: "download" | "upload",
  steps: readonly (() => unknown)[],
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "wirebadge-roaming-"));
  try {
    const file = join(folder, "blob");
    if (direction === "upload") await writeFile(file, blocks(BYTES));
    const args = direction === "download" ? ["-o", file, `${URL}/blob/${BYTES}`] : ["-T", file, `${URL}/hash`];
    let running = true;
    const run = curl(pair.a, ["--limit-rate", RATE, ...args], {
      direct: pair.how === "TUN",
      timeoutMs: PATIENCE_MS,
    }).finally(() => {
      running = false;
    });
    run.catch(() => undefined); // until it is awaited
    for (const [index, step] of steps.entries()) {
      const from = ((index + 1) * BYTES) / (steps.length + 2);
      await until("progress", async () => (await moved(pair, direction)) > from || undefined, PATIENCE_MS);
      expect(running, "roaming happens in mid-transfer").toBe(true);
      await step();
    }
    const { stdout } = await run;
    const hash = direction === "upload" ? stdout : (await pair.a.run("sha256sum", [file])).stdout.split(" ")[0];
    expect(hash).toBe(hashOfBlob(BYTES));
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** From now on what leaves port PORT comes from `port` for everybody else, and PORT is dead. */
function movePort(namespace: Namespace, port: number): void {
  namespace.nft(`table inet moved {
    chain out { type filter hook output priority raw; udp sport ${PORT} udp sport set ${port}; }
    chain in {
      type filter hook prerouting priority raw;
      udp dport ${PORT} drop
      udp dport ${port} udp dport set ${PORT}
    }
  }`);
}

function moveAddress(namespace: Namespace, from: string, to: string): void {
  namespace.ip("addr", "del", from, "dev", "eth0");
  namespace.addAddress("eth0", to);
}

const endpointIs = async ({ stock, ourKey }: Pair, wanted: string): Promise<void> => {
  await until(`endpoint ${wanted}`, async () => (await stock.show("endpoints")).get(ourKey) === wanted || undefined);
};

const all = needs("netns", "tun", "wg", "wireguard-go", "curl", "nft");
const CASES = (["SOCKS5", "TUN"] as const).flatMap((how) =>
  (["download", "upload"] as const).map((direction) => [direction, how] as const),
);

describe.runIf(all).concurrent.each(CASES)("a transfer (%s, %s) goes on, byte for byte", (direction, how) => {
  test("while the other end changes its port, its address and the outer family", async () => {
    await using lab = new Lab();
    const pair = await start(lab, how, "stock");
    await transfer(pair, direction, [
      () => pair.stock.set("listen-port", "51899"),
      () => moveAddress(pair.b, "10.1.0.2/24", "10.1.0.22/24"),
      async () => {
        pair.b.ip("addr", "del", "10.1.0.22/24", "dev", "eth0"); // or what is on its way brings it back to IPv4
        await pair.stock.set("peer", pair.ourKey, "endpoint", `[fd01::1]:${PORT}`);
      },
      () => moveAddress(pair.b, "fd01::2/64", "fd01::33/64"),
    ]);
  });

  test("while our end changes its address and its port", async () => {
    await using lab = new Lab();
    const pair = await start(lab, how, "ours");
    await transfer(pair, direction, [
      async () => {
        moveAddress(pair.a, "10.1.0.1/24", "10.1.0.7/24");
        await endpointIs(pair, `10.1.0.7:${PORT}`);
      },
      async () => {
        movePort(pair.a, 60_001);
        await endpointIs(pair, "10.1.0.7:60001");
      },
    ]);
  });
});
