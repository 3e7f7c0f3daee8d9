// MTU and padding at the edges: an echo request of every length up to the MTU, both families, and the answer that
// another implementation seals; packets that are none; one byte over the MTU.
import { describe, expect, test } from "vitest";
import { SMALLEST_ECHO_BYTES } from "../interop/echo.ts";
import { OurEnd } from "../interop/our-end.ts";
import { type Stock, startStock } from "../interop/stock-wireguard.ts";
import { configText, newKey } from "../interop/wg-scenario.ts";
import { Lab } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { record } from "../proof/form.ts";

const STOCKS: readonly Stock[] = ["wireguard-go", "wireguard-go-debian", "boringtun-cli"];
const PORT = 51_820;
const PATIENCE_MS = 180_000;
const PAIRS = { v4: ["10.9.0.1", "10.9.0.2"], v6: ["fd09::1", "fd09::2"] } as const;

/** Of an Ethernet without IPv6 options; one that is odd, so that padding meets it everywhere. */
const MTUS = [1420, 1389] as const;
const DATA_BYTES = 32; // around the padded packet

async function start(lab: Lab, stock: Stock, mtu: number): Promise<OurEnd> {
  const [here, there] = [lab.namespace("here"), lab.namespace("there")];
  lab.link({ namespace: here, addresses: ["10.1.0.1/24"] }, { namespace: there, addresses: ["10.1.0.2/24"] });
  const [us, them] = [newKey(), newKey()];
  await startStock(there, {
    stock,
    mtu,
    addresses: ["10.9.0.2/24", "fd09::2/64"],
    config: configText({
      privateKey: them.privateKey,
      listenPort: PORT,
      peers: [{ publicKey: us.publicKey, allowedIps: "10.9.0.1/32, fd09::1/128" }],
    }),
  });
  return await OurEnd.start(here, {
    crypto: "native",
    family: "udp4",
    privateKey: us.privateKey,
    peerPublicKey: them.publicKey,
    endpoint: `10.1.0.2:${PORT}`,
    mtuBytes: mtu,
    pings: [],
  });
}

const cases = STOCKS.flatMap((stock) => MTUS.map((mtu) => [stock, mtu] as const));

describe.runIf(needs("netns", "tun", "wg", ...STOCKS)).concurrent("every length up to the MTU", () => {
  test.each(cases)("crosses and comes back: %s, MTU %i", async (stock, mtu) => {
    await using lab = new Lab();
    const ours = await start(lab, stock, mtu);
    ours.tell({ kind: "handshake" });
    await ours.until("a session", ({ sessions }) => sessions.length === 1);
    // No packets at all, but they are sealed and padded like any: the other end drops them and lives on.
    ours.tell({ kind: "junk", lengths: [1, 15, 16, 17, 19, 20, mtu] });
    let wanted = 0;
    for (const family of ["v4", "v6"] as const) {
      const [source, destination] = PAIRS[family];
      const from = SMALLEST_ECHO_BYTES[family];
      ours.tell({ kind: "sweep", source, destination, from, to: mtu + 1 });
      wanted += mtu + 1 - from;
    }
    const report = await ours.until(
      "both sweeps' answers",
      (last) => last.sweepsDone === 2 && last.pongsReceived >= wanted,
      PATIENCE_MS,
    );
    expect(report.pongsReceived).toBe(wanted);
    expect(report.counters["PACKET_TOO_LARGE"]).toBe(2); // one a family, the one over the MTU
    expect(report.largestSentBytes).toBe(mtu + DATA_BYTES); // full: the padding went nowhere beyond
    // boringtun 0.7.1 pads nothing (noise/session.rs, format_packet_data seals the packet as it is).
    const { "to 16": padded, none, other } = report.paddings;
    expect(other).toBe(0);
    expect(stock === "boringtun-cli" ? padded : none).toBeLessThan(10); // within a byte of the MTU both look alike
    expect(padded + none).toBeGreaterThan(1_000);
    record({ what: `echo requests of every length, ${stock}, MTU ${mtu}`, count: wanted });
  });
});
