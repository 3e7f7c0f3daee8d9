// One row of the interop matrix: our Device against another implementation, each in a namespace of its own, both
// families inside, at real time past two rekeys, and no packet lost.
import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { expect } from "vitest";
import { toBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { OurEnd } from "./our-end.ts";
import { type Stock, type StockEnd, startStock } from "./stock-wireguard.ts";

export interface Row {
  readonly stock: Stock;
  readonly we: "initiator" | "responder";
  readonly psk: boolean;
  readonly outside: 4 | 6;
  readonly crypto: "native" | "portable";
}

const PORT = 51_820;
const OURS = { v4: "10.9.0.1", v6: "fd09::1" };
const THEIRS = { v4: "10.9.0.2", v6: "fd09::2" };
const PAST_REKEYS_S = 250; // REKEY_AFTER_TIME is 120 s
const REKEYS = 2;
/** None of these has a reason to happen between two good ends. */
const NO_DROPS = ["MAC1_WRONG", "DATA_FORGED", "REPLAYED", "UNKNOWN_INDEX", "RESPONSE_FORGED", "SESSION_EXPIRED"];
const crypto = new PortableCrypto();

export function titleOf({ stock, we, psk, outside, crypto }: Row): string {
  return `${stock}: as ${we} over IPv${outside} ${psk ? "with" : "without"} a preshared key, ${crypto}`;
}

/** Throws when something of it doesn't hold. Gives the number of packets that crossed, each way and back. */
export async function runRow(row: Row): Promise<number> {
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
  const stock = await startStock(there, {
    stock: row.stock,
    config: `${config}\n`,
    addresses: [`${THEIRS.v4}/24`, `${THEIRS.v6}/64`],
  });
  const ours = await OurEnd.start(here, {
    crypto: row.crypto,
    family: row.outside === 4 ? "udp4" : "udp6",
    privateKey: toBase64(ourKey),
    peerPublicKey: toBase64(crypto.publicKey(theirKey)),
    ...(psk === undefined ? {} : { presharedKey: psk }),
    ...(row.we === "initiator" ? { endpoint: endpoint(2) } : {}),
    pings: row.we === "initiator" ? [pair("v4"), pair("v6")] : [],
  });
  const crossed = row.we === "initiator" ? await checkInitiator(ours, stock) : await checkResponder(ours, there);
  const { counters, endpoint: source } = ours.latest();
  expect(source).toBe(row.outside === 4 ? "10.1.0.2" : "fd00:1::2");
  for (const drop of NO_DROPS) expect(counters[drop], drop).toBe(0);
  return crossed;
}

const pair = (family: "v4" | "v6"): readonly [string, string] => [OURS[family], THEIRS[family]];

/** We ask and ping; the kernel behind the other implementation answers. */
async function checkInitiator(ours: OurEnd, stock: StockEnd): Promise<number> {
  await ours.until("first answers", (report) => report.pongsReceived >= 2);
  const firstHandshake = await stock.latestHandshake();
  expect(firstHandshake).toBeGreaterThan(0);
  expect(ours.latest().sessions).toEqual(["initiator"]);
  await delay(PAST_REKEYS_S * 1000);
  // Two may be on their way.
  const report = await ours.until("the last answer", (last) => last.pingsSent - last.pongsReceived <= 2);
  expect(report.pingsSent).toBeGreaterThan(1.5 * PAST_REKEYS_S); // two a second, fewer on a busy machine
  expect(report.sessions).toEqual(Array<string>(REKEYS + 1).fill("initiator"));
  expect(report.counters["STAGED_DROPPED"]).toBe(0);
  expect(await stock.latestHandshake()).toBeGreaterThanOrEqual(firstHandshake + REKEYS * 119);
  return report.pongsReceived;
}

/** The other implementation asks, the kernel behind it pings; packets up to the MTU pass too. */
async function checkResponder(ours: OurEnd, there: Namespace): Promise<number> {
  const count = String(PAST_REKEYS_S);
  const large = (host: string, bytes: number) => there.run("ping", ["-c", "3", "-i", "0.2", "-s", String(bytes), host]);
  await large(OURS.v4, 1420 - 28);
  await large(OURS.v6, 1420 - 48);
  const args = ["-q", "-i", "1", "-W", "10", "-c", count];
  const runs = [OURS.v4, OURS.v6].map((host) => there.run("ping", [...args, host], { timeoutMs: 400_000 }));
  for (const run of await Promise.all(runs)) expect(run.stdout).toContain(`${count} received, 0% packet loss`);
  const report = await ours.until("a report", () => true);
  expect(report.echoesAnswered).toBe(2 * PAST_REKEYS_S + 6);
  // On a busy machine it may ask once more: our answer came after it had sent its next initiation.
  expect([REKEYS + 1, REKEYS + 2]).toContain(report.sessions.length);
  expect(new Set(report.sessions)).toEqual(new Set(["responder"]));
  expect(report.counters["INITIATIONS_SENT"]).toBe(0);
  return report.echoesAnswered;
}
