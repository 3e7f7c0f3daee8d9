// Floods of small packets at `wirebadge wg --tun`, from outside (junk that looks like WireGuard) and from this host
// (into the device, more than can be sealed): strangers' handshakes with it and its own are made all the same.
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { toBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import type { PeersOptions, PeersReport } from "../hostile/flood-peers.ts";
import type { PacketFloodOptions, PacketFloodReport } from "../hostile/packet-flood.ts";
import { newKey, type PeerLines, startWirebadge } from "../interop/wg-scenario.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { record, scale } from "../proof/form.ts";
import { Program, until } from "../scripts/program.ts";

const FLOOD = new URL("../hostile/packet-flood.ts", import.meta.url).pathname;
const PEERS = new URL("../hostile/flood-peers.ts", import.meta.url).pathname;
const PORT = 51_820;
const FOR_MS = scale(5_000, 60_000);
const JUNK_PER_SECOND = 100_000;
const HANDSHAKES = scale(20, 200);
const FRIENDS = 10;
/** Unanswered initiations are sent again after 5 s: half of them at the least never wait for that. */
const MEDIAN_MAX_MS = 1_000;
const OWN_HANDSHAKES_MAX_MS = 15_000;
const GROWN_MAX_MB = 60;

const crypto = new PortableCrypto();
const friendKey = (i: number): Uint8Array => new Uint8Array(32).fill(i + 1);

const residentMb = (pid: number): number =>
  Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1_024;

async function flood(namespace: Namespace, options: Omit<PacketFloodOptions, "forMs">): Promise<number> {
  const words = [FLOOD, JSON.stringify({ ...options, forMs: FOR_MS } satisfies PacketFloodOptions)];
  const ran = await namespace.run(process.execPath, words, { timeoutMs: FOR_MS + 30_000 });
  return (JSON.parse(ran.stdout) as PacketFloodReport).sent;
}

async function reaches(namespace: Namespace, host: string): Promise<boolean> {
  const ran = await namespace.run(requireTool("ping"), ["-c", "1", "-W", "1", host], { check: false });
  return ran.code === 0;
}

/** Handshakes of peers that were just started, one after the other; in ms, sorted. */
async function handshakes(namespace: Namespace, publicKey: string): Promise<readonly number[]> {
  const options: PeersOptions = {
    victim: { publicKey, endpoints: [`10.1.0.1:${PORT}`] },
    peers: Array.from({ length: FRIENDS }, (_, i) => ({
      privateKey: toBase64(friendKey(i)),
      address: `10.1.0.${100 + i}`,
    })),
    everyMs: (FOR_MS - 1_000) / HANDSHAKES,
    count: HANDSHAKES,
  };
  const program = new Program("friends", process.execPath, [PEERS, JSON.stringify(options)], { namespace });
  await until("the friends", () => program.stdoutLines.length > 0);
  program.child.stdin?.write("\n");
  await program.exited;
  const { tookMs } = JSON.parse(program.stdoutLines.at(-1)!) as PeersReport;
  return tookMs.map((took) => took ?? Number.POSITIVE_INFINITY).sort((one, other) => one - other);
}

describe.runIf(needs("root", "tun", "netns", "ping"))("wg --tun under floods of small packets", () => {
  test.each([
    ["junk from outside", { outside: true, inside: false }],
    ["packets of this host", { outside: false, inside: true }],
    ["both at once", { outside: true, inside: true }],
  ])("%s: no handshake is starved, neither others' nor its own", async (what, from) => {
    await using lab = new Lab();
    const [victim, friends, attacker] = [lab.namespace("victim"), lab.namespace("friends"), lab.namespace("attacker")];
    const [, toVictim] = lab.link(
      { namespace: victim, addresses: ["10.1.0.1/24"] },
      { namespace: friends, addresses: ["10.1.0.2/24"] },
    );
    lab.link({ namespace: victim, addresses: ["10.2.0.1/24"] }, { namespace: attacker, addresses: ["10.2.0.2/24"] });
    const third = lab.namespace("third");
    lab.link({ namespace: victim, addresses: ["10.3.0.1/24"] }, { namespace: third, addresses: ["10.3.0.2/24"] });
    for (let i = 0; i < FRIENDS; i++) friends.addAddress(toVictim, `10.1.0.${100 + i}/32`);
    const [us, them, late] = [newKey(), newKey(), newKey()];
    const [one, other, second] = [`wbf${process.pid}a`, `wbf${process.pid}b`, `wbf${process.pid}c`];
    const backTo = { publicKey: us.publicKey, allowedIps: "10.9.0.1/32" };
    await startWirebadge(friends, { ...them, listenPort: PORT, address: "10.9.0.2/32", peers: [backTo] }, [
      "--tun",
      other,
    ]);
    await startWirebadge(third, { ...late, listenPort: PORT, address: "10.9.0.3/32", peers: [backTo] }, [
      "--tun",
      second,
    ]);
    const peers: PeerLines[] = [
      { publicKey: them.publicKey, allowedIps: "10.9.0.2/32", endpoint: `10.1.0.2:${PORT}` },
      { publicKey: late.publicKey, allowedIps: "10.9.0.3/32", endpoint: `10.3.0.2:${PORT}` },
      ...Array.from({ length: FRIENDS }, (_, i) => ({
        publicKey: toBase64(crypto.publicKey(friendKey(i))),
        allowedIps: `10.9.1.${i}/32`,
      })),
    ];
    const config = { ...us, listenPort: PORT, address: "10.9.0.1/24", peers };
    const ours = await startWirebadge(victim, config, ["--tun", one]);
    await until("an answer", () => reaches(victim, "10.9.0.2"));
    const startMb = residentMb(ours.pid);

    const floods = [
      ...(from.outside
        ? [flood(attacker, { host: "10.2.0.1", port: PORT, perSecond: JUNK_PER_SECOND, junk: true })]
        : []),
      ...(from.inside ? [flood(victim, { host: "10.9.0.2", port: 9, perSecond: null, junk: false })] : []),
    ];
    await delay(1_000);
    const made = handshakes(friends, us.publicKey);
    const startedMs = performance.now();
    await until("an answer of a peer that was not spoken to", () => reaches(victim, "10.9.0.3"), OWN_HANDSHAKES_MAX_MS);
    const ownMs = performance.now() - startedMs;
    const tookMs = await made;
    const sent = (await Promise.all(floods)).reduce((sum, count) => sum + count, 0);
    const [median, worst] = [tookMs[tookMs.length >>> 1]!, tookMs.at(-1)!];
    const figure = `handshakes p50 ${median.toFixed(0)} ms, worst ${worst.toFixed(0)} ms, own ${ownMs.toFixed(0)} ms`;
    process.stderr.write(`FLOOD ${what}: ${sent} packets, ${figure}\n`);
    record({ what: `packets at wg --tun, ${what}`, count: sent, figure });
    expect(worst).toBeLessThan(Number.POSITIVE_INFINITY);
    expect(median).toBeLessThan(MEDIAN_MAX_MS);
    expect(sent).toBeGreaterThan(FOR_MS * (from.outside ? 50 : 10));
    expect(residentMb(ours.pid) - startMb).toBeLessThan(GROWN_MAX_MB);
    await until("an answer", () => reaches(friends, "10.9.0.1"));
    expect(await ours.end()).toBe(0);
    const said = ours.records.find((row) => row["event"] === "counters")?.["counters"] as Record<string, number>;
    if (from.outside) expect(said["loop-datagramsIn"]).toBeGreaterThan(FOR_MS * 30);
    if (from.inside) expect(said["loop-tunReads"]).toBeGreaterThan(FOR_MS * 5);
  });
});
