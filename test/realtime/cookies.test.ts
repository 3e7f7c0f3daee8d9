// Cookies forced each way: each other implementation is brought under load and answers our initiation with a cookie
// reply; our end is brought under load and answers theirs so. Both sides then complete by mac2 while the load lasts.
import { describe, expect, test } from "vitest";
import { startFlood } from "../interop/flood.ts";
import { OurEnd } from "../interop/our-end.ts";
import { type Stock, startStock } from "../interop/stock-wireguard.ts";
import { configText, newKey } from "../interop/wg-scenario.ts";
import type { EndReport } from "../interop/wireguard-end.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs } from "../needs.ts";

const STOCKS: readonly Stock[] = ["wireguard-go", "wireguard-go-debian", "boringtun-cli"];
const PORT = 51_820;

interface Places {
  readonly ours: Namespace;
  readonly stock: Namespace;
  readonly crowd: Namespace;
}

/** Our end 10.1.0.1, the other 10.1.0.2, the crowd 10.1.0.101 and up, on one switch. */
function layOut(lab: Lab): Places {
  const [ours, stock, crowd] = [lab.namespace("ours"), lab.namespace("stock"), lab.namespace("crowd")];
  lab.bridge("switch", [
    { namespace: ours, addresses: ["10.1.0.1/24"] },
    { namespace: stock, addresses: ["10.1.0.2/24"] },
    { namespace: crowd, addresses: CROWD.map((address) => `${address}/24`) },
  ]);
  return { ours, stock, crowd };
}

const CROWD = Array.from({ length: 8 }, (_, id) => `10.1.0.${101 + id}`);

/** wireguard-go's receive.go, boringtun's noise/mod.rs. */
const GOT_COOKIE = /Receiving cookie response|Received cookie_reply/;

const [us, them] = [newKey(), newKey()];

/**
 * wireguard-go is under load while 128 handshakes wait in its queue and for a second after (device.go, IsUnderLoad): a
 * burst is what does it. boringtun is from the 100th handshake of each second on (device/mod.rs). Ours is while what
 * waits would take too long; its stopwatch says that each takes five milliseconds.
 */
const OUR_COST_MS = 5;
const FLOODS = {
  "wireguard-go": { burst: 800, everyMs: 400 },
  "wireguard-go-debian": { burst: 800, everyMs: 400 },
  "boringtun-cli": { burst: 40, everyMs: 40 },
  ours: { burst: 40, everyMs: 40 },
};

/** The one that is flooded has no endpoint: the other begins, once the flood is felt. */
async function start(places: Places, stock: Stock, flooded: "ours" | "stock") {
  const stockEnd = await startStock(places.stock, {
    stock,
    talkative: true,
    addresses: ["10.9.0.2/24"],
    config: configText({
      privateKey: them.privateKey,
      listenPort: PORT,
      peers: [
        {
          publicKey: us.publicKey,
          allowedIps: "10.9.0.1/32",
          endpoint: flooded === "ours" ? `10.1.0.1:${PORT}` : undefined,
        },
      ],
    }),
  });
  const ours = await OurEnd.start(places.ours, {
    crypto: "native",
    family: "udp4",
    privateKey: us.privateKey,
    peerPublicKey: them.publicKey,
    ...(flooded === "stock" ? { endpoint: `10.1.0.2:${PORT}` } : { handshakeCostMs: OUR_COST_MS }),
    pings: [],
  });
  // Ours lets a stranger ask once in a while without a cookie: the crowd sits behind the other end's own address.
  const flood = await startFlood(flooded === "ours" ? places.stock : places.crowd, {
    host: flooded === "ours" ? "10.1.0.1" : "10.1.0.2",
    port: PORT,
    publicKey: flooded === "ours" ? us.publicKey : them.publicKey,
    sources: flooded === "ours" ? ["10.1.0.2"] : CROWD,
    socketsPerSource: 4,
    ...FLOODS[flooded === "ours" ? "ours" : stock],
  });
  await flood.underLoad();
  return { stockEnd, ours, flood };
}

/**
 * Handshakes until one of them was asked for a cookie: boringtun takes the first 100 of each second without, which on a
 * busy machine are most of them.
 */
async function handshakeByCookie(ours: OurEnd): Promise<EndReport> {
  for (let tries = 0; ; tries++) {
    const before = ours.latest().counters;
    ours.tell({ kind: "handshake" });
    const report = await ours.until(
      "a handshake",
      ({ counters }) => counters["HANDSHAKES_COMPLETED"]! > before["HANDSHAKES_COMPLETED"]!,
    );
    if (report.counters["COOKIES_RECEIVED"]! > 0 || tries === 40) return report;
  }
}

async function askOnce(from: Namespace): Promise<string> {
  const { stdout } = await from.run("ping", ["-c", "1", "-W", "60", "10.9.0.1"], { timeoutMs: 90_000 });
  expect(stdout).toContain("1 received");
  return stdout;
}

const all = needs("netns", "tun", "wg", "ping", ...STOCKS);

describe.runIf(all).concurrent("another implementation under load", () => {
  test.each(STOCKS)("%s answers us with a cookie, and we complete by it", async (stock) => {
    await using lab = new Lab();
    const { ours, flood } = await start(layOut(lab), stock, "stock");
    await ours.until("a report", () => true);
    const { counters } = await handshakeByCookie(ours);
    expect(counters["COOKIES_RECEIVED"]).toBeGreaterThanOrEqual(1);
    expect(counters["COOKIE_FORGED"]).toBe(0);
    await flood.underLoad(); // still: it was mac2 that let us in
  });
});

describe.runIf(all).concurrent("our end under load", () => {
  test.each(STOCKS)("answers %s with a cookie, and it completes by it", async (stock) => {
    await using lab = new Lab();
    const places = layOut(lab);
    const { stockEnd, ours, flood } = await start(places, stock, "ours");
    const before = (await ours.until("a report", () => true)).counters;
    expect(before["HANDSHAKES_COMPLETED"]).toBe(0);
    let ping = await askOnce(places.stock);
    for (let tries = 0; !stockEnd.said(GOT_COOKIE) && tries < 5; tries++) {
      // It slipped in between two moments of load: once more, from the beginning.
      await stockEnd.set("peer", us.publicKey, "remove");
      await stockEnd.set("peer", us.publicKey, "allowed-ips", "10.9.0.1/32", "endpoint", `10.1.0.1:${PORT}`);
      ping = await askOnce(places.stock);
    }
    expect(stockEnd.said(GOT_COOKIE)).toBe(true);
    await flood.underLoad();
    const { counters } = await ours.until("a report", () => true);
    expect(counters["HANDSHAKES_COMPLETED"]).toBeGreaterThanOrEqual(1);
    // Its first initiation got a cookie and nothing else; the next, after REKEY_TIMEOUT (5 s), had it and was taken.
    const tookMs = Number(/ time=([\d.]+) ms/.exec(ping)?.[1]);
    expect(tookMs).toBeGreaterThan(4_000);
    expect(tookMs).toBeLessThan(9_500);
  });
});
