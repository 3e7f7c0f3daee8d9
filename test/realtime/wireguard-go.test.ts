// Our WireGuard against wireguard-go, each in a network namespace of its own: who begins, with and without a preshared
// key, IPv4 and IPv6 outside, both inside, both providers, over one rekey at real time. The rows run side by side.

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { toBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import type { EndOptions, EndReport } from "../interop/wireguard-end.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";

const END = fileURLToPath(new URL("../interop/wireguard-end.ts", import.meta.url));
const PORT = 51_820;
const PAST_REKEY_S = 128; // REKEY_AFTER_TIME is 120 s

interface Row {
  readonly we: "initiator" | "responder";
  readonly psk: boolean;
  readonly outside: 4 | 6;
  readonly crypto: "native" | "portable";
}

const ROWS: readonly Row[] = [
  { we: "initiator", psk: false, outside: 4, crypto: "native" },
  { we: "initiator", psk: true, outside: 6, crypto: "portable" },
  { we: "initiator", psk: true, outside: 4, crypto: "native" },
  { we: "initiator", psk: false, outside: 6, crypto: "portable" },
  { we: "responder", psk: false, outside: 4, crypto: "portable" },
  { we: "responder", psk: true, outside: 6, crypto: "native" },
  { we: "responder", psk: true, outside: 4, crypto: "portable" },
  { we: "responder", psk: false, outside: 6, crypto: "native" },
];

const crypto = new PortableCrypto();
const OURS = { v4: "10.9.0.1", v6: "fd09::1" };
const THEIRS = { v4: "10.9.0.2", v6: "fd09::2" };

/** wireguard-go in the foreground, configured by wg(8), its interface up. Gives the interface's name. */
async function startWireguardGo(namespace: Namespace, id: number, config: string): Promise<string> {
  const name = `wbi${process.pid % 100_000}x${id}`; // its control socket lies in a folder that all namespaces share
  const child = namespace.spawn(requireTool("wireguard-go"), ["-f", name], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, LOG_LEVEL: "error" },
  });
  let errors = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
  });
  // A file, since wg(8) can't open a socket, which a child's stdin is.
  const folder = await mkdtemp(join(tmpdir(), "wirebadge-interop-"));
  const file = join(folder, "wg.conf");
  await writeFile(file, config, { mode: 0o600 });
  for (let tries = 0; ; tries++) {
    const set = await namespace.run(requireTool("wg"), ["setconf", name, file], { check: false });
    if (set.code === 0) break;
    if (tries === 50) throw new Error(`wireguard-go did not come up: ${set.stderr} ${errors}`);
    await delay(100);
  }
  await rm(folder, { recursive: true });
  namespace.addAddress(name, `${THEIRS.v4}/24`);
  namespace.addAddress(name, `${THEIRS.v6}/64`);
  namespace.ip("link", "set", name, "mtu", "1420", "up");
  return name;
}

/** Our end; `latest()` is its last report. */
async function startOurs(namespace: Namespace, options: EndOptions): Promise<{ latest(): EndReport }> {
  const child = namespace.spawn(process.execPath, [END, JSON.stringify(options)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let latest: EndReport | undefined;
  let errors = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
  });
  const lines = createInterface({ input: child.stdout! });
  await Promise.race([
    once(lines, "line"),
    once(child, "exit").then(() => {
      throw new Error(`our end did not start: ${errors}`);
    }),
  ]);
  lines.on("line", (line) => {
    latest = JSON.parse(line) as EndReport;
  });
  return {
    latest() {
      if (latest === undefined || child.exitCode !== null) throw new Error(`our end is gone: ${errors}`);
      return latest;
    },
  };
}

async function latestHandshake(namespace: Namespace, name: string): Promise<number> {
  const shown = await namespace.run(requireTool("wg"), ["show", name, "latest-handshakes"]);
  return Number(shown.stdout.trim().split("\t")[1]);
}

async function runRow(row: Row, id: number): Promise<void> {
  await using lab = new Lab();
  const [here, there] = [lab.namespace("here"), lab.namespace("there")];
  lab.link(
    { namespace: here, addresses: ["10.1.0.1/24", "fd00:1::1/64"] },
    { namespace: there, addresses: ["10.1.0.2/24", "fd00:1::2/64"] },
  );
  const ourKey = new Uint8Array(randomBytes(32));
  const theirKey = new Uint8Array(randomBytes(32));
  const psk = row.psk ? toBase64(new Uint8Array(randomBytes(32))) : undefined;
  const endpoint = (host: 1 | 2): string =>
    row.outside === 4 ? `10.1.0.${host}:${PORT}` : `[fd00:1::${host}]:${PORT}`;
  const config = [
    "[Interface]",
    `PrivateKey = ${toBase64(theirKey)}`,
    `ListenPort = ${PORT}`,
    "[Peer]",
    `PublicKey = ${toBase64(crypto.publicKey(ourKey))}`,
    `AllowedIPs = ${OURS.v4}/32, ${OURS.v6}/128`,
    ...(psk === undefined ? [] : [`PresharedKey = ${psk}`]),
    ...(row.we === "responder" ? [`Endpoint = ${endpoint(1)}`] : []),
  ].join("\n");
  const name = await startWireguardGo(there, id, `${config}\n`);
  const ours = await startOurs(here, {
    crypto: row.crypto,
    family: row.outside === 4 ? "udp4" : "udp6",
    privateKey: toBase64(ourKey),
    peerPublicKey: toBase64(crypto.publicKey(theirKey)),
    ...(psk === undefined ? {} : { presharedKey: psk }),
    ...(row.we === "initiator" ? { endpoint: endpoint(2) } : {}),
    pings:
      row.we === "initiator"
        ? [
            [OURS.v4, THEIRS.v4],
            [OURS.v6, THEIRS.v6],
          ]
        : [],
  });
  if (row.we === "initiator") await checkInitiator(ours, there, name);
  else await checkResponder(ours, there);
  const { counters, endpoint: source } = ours.latest();
  expect(source).toBe(row.outside === 4 ? "10.1.0.2" : "fd00:1::2");
  for (const drop of ["MAC1_WRONG", "DATA_FORGED", "REPLAYED", "UNKNOWN_INDEX", "RESPONSE_FORGED", "SESSION_EXPIRED"]) {
    expect(counters[drop], drop).toBe(0);
  }
}

/** We ask and ping; the kernel behind wireguard-go answers. */
async function checkInitiator(ours: { latest(): EndReport }, there: Namespace, name: string): Promise<void> {
  await delay(4_000);
  const firstHandshake = await latestHandshake(there, name);
  expect(firstHandshake).toBeGreaterThan(0);
  expect(ours.latest().sessions).toEqual(["initiator"]);
  await delay(PAST_REKEY_S * 1000 - 4_000);
  const report = ours.latest();
  expect(report.pingsSent).toBeGreaterThan(2 * (PAST_REKEY_S - 8));
  expect(report.pingsSent - report.pongsReceived).toBeLessThanOrEqual(2); // may be on their way
  expect(report.sessions).toEqual(["initiator", "initiator"]);
  expect(report.counters["INITIATIONS_SENT"]).toBe(2);
  expect(await latestHandshake(there, name)).toBeGreaterThanOrEqual(firstHandshake + 119);
}

/** wireguard-go asks, the kernel behind it pings; packets up to the MTU pass too. */
async function checkResponder(ours: { latest(): EndReport }, there: Namespace): Promise<void> {
  const count = String(PAST_REKEY_S);
  const large = (host: string, bytes: number) => there.run("ping", ["-c", "3", "-i", "0.2", "-s", String(bytes), host]);
  await large(OURS.v4, 1420 - 28);
  await large(OURS.v6, 1420 - 48);
  const args = ["-q", "-i", "1", "-W", "3", "-c", count];
  const runs = [OURS.v4, OURS.v6].map((host) => there.run("ping", [...args, host], { timeoutMs: 200_000 }));
  for (const run of await Promise.all(runs)) expect(run.stdout).toContain(`${count} received, 0% packet loss`);
  await delay(1_100);
  const report = ours.latest();
  expect(report.echoesAnswered).toBe(2 * PAST_REKEY_S + 6);
  expect(report.sessions).toEqual(["responder", "responder"]);
  expect(report.counters["INITIATIONS_SENT"]).toBe(0);
}

describe.runIf(needs("netns", "tun", "wg", "wireguard-go", "ping"))("against wireguard-go, over a rekey", () => {
  let outcomes: Promise<PromiseSettledResult<void>[]>[] = [];

  // All at once: together they take as long as one.
  beforeAll(() => {
    outcomes = ROWS.map((row, id) => Promise.allSettled([runRow(row, id)]));
  });

  for (const [id, row] of ROWS.entries()) {
    const psk = row.psk ? "with" : "without";
    const title = `as ${row.we} over IPv${row.outside} ${psk} a preshared key, ${row.crypto}: no packet is lost`;
    test(title, async () => {
      const [outcome] = await outcomes[id]!;
      if (outcome!.status === "rejected") throw outcome!.reason;
    });
  }
});
