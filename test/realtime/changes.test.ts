// What changes while traffic flows: the preshared key, either end's own key, and a more specific prefix that moves to
// another peer, on the other end's side (`wg set`) and on ours.
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { EngineEnd } from "../interop/engine-process.ts";
import { OurEnd } from "../interop/our-end.ts";
import { type StockEnd, startStock } from "../interop/stock-wireguard.ts";
import {
  configText,
  curl,
  type Key,
  newKey,
  newPresharedKey,
  startHttp,
  startWirebadge,
} from "../interop/wg-scenario.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { until } from "../scripts/program.ts";

const PORT = 51_820;
const PING: readonly [string, string] = ["10.9.0.1", "10.9.0.2"];
const ENDPOINT = `10.1.0.2:${PORT}`;

function linked(lab: Lab): [Namespace, Namespace] {
  const [here, there] = [lab.namespace("here"), lab.namespace("there")];
  lab.link({ namespace: here, addresses: ["10.1.0.1/24"] }, { namespace: there, addresses: ["10.1.0.2/24"] });
  return [here, there];
}

/** The other end, and ours, which pings it once a second. */
async function pinging(lab: Lab, us: Key, them: Key, presharedKey: string): Promise<[OurEnd, StockEnd]> {
  const [here, there] = linked(lab);
  const stock = await startStock(there, {
    addresses: ["10.9.0.2/24"],
    config: configText({
      privateKey: them.privateKey,
      listenPort: PORT,
      peers: [{ publicKey: us.publicKey, allowedIps: "10.9.0.1/32", presharedKey }],
    }),
  });
  const ours = await OurEnd.start(here, {
    crypto: "native",
    family: "udp4",
    privateKey: us.privateKey,
    peerPublicKey: them.publicKey,
    presharedKey,
    endpoint: ENDPOINT,
    pings: [PING],
  });
  await ours.until("answers", (report) => report.pongsReceived > 1);
  return [ours, stock];
}

const completed = (ours: OurEnd): number => ours.latest().counters["HANDSHAKES_COMPLETED"]!;

/** A new handshake, now; two are never less than REKEY_TIMEOUT apart. */
async function rekey(ours: OurEnd): Promise<void> {
  const before = completed(ours);
  ours.tell({ kind: "handshake" });
  await ours.until("a new session", ({ counters }) => counters["HANDSHAKES_COMPLETED"]! > before);
}

/** All pings but those on their way were answered. */
async function lostNone(ours: OurEnd): Promise<void> {
  await ours.until("all answers", (report) => report.pingsSent - report.pongsReceived <= 1);
}

const all = needs("netns", "tun", "wg", "ping", "wireguard-go", "curl");

describe.runIf(all).concurrent("while traffic flows", () => {
  test("the preshared key changes at both ends: no packet is lost; at one: the old session serves on", async () => {
    await using lab = new Lab();
    const [us, them] = [newKey(), newKey()];
    const [first, second, third] = [newPresharedKey(), newPresharedKey(), newPresharedKey()];
    const [ours, stock] = await pinging(lab, us, them, first);
    const setTheirs = (key: string) => stock.setSecret(key, "peer", us.publicKey, "preshared-key", "#");
    const setOurs = (presharedKey: string) =>
      ours.tell({ kind: "peer", peer: { peerPublicKey: them.publicKey, presharedKey } });

    await setTheirs(second);
    setOurs(second);
    await rekey(ours);
    await lostNone(ours);

    await setTheirs(third);
    await delay(6_000); // past REKEY_TIMEOUT
    const before = completed(ours);
    ours.tell({ kind: "handshake" });
    await ours.until("a refused answer", ({ counters }) => counters["RESPONSE_FORGED"]! > 0);
    await delay(3_000);
    expect(completed(ours)).toBe(before);
    await lostNone(ours); // under the session of before

    setOurs(third);
    await rekey(ours);
    await lostNone(ours);
  });

  test("the other end's key changes: ours falls silent there, and is back at once when it is told", async () => {
    await using lab = new Lab();
    const [us, them, next] = [newKey(), newKey(), newKey()];
    const presharedKey = newPresharedKey();
    const [ours, stock] = await pinging(lab, us, them, presharedKey);
    await stock.setSecret(next.privateKey, "private-key", "#");
    const last = await ours.until("silence", (report) => report.pingsSent - report.pongsReceived >= 4);
    ours.tell({ kind: "peer", peer: { peerPublicKey: next.publicKey, presharedKey, endpoint: ENDPOINT } });
    await ours.until("answers again", (report) => report.pongsReceived >= last.pongsReceived + 3, 15_000);
  });

  test("our key changes, or the preshared key, by a restart with another file: it is reached again", async () => {
    await using lab = new Lab();
    const [here, there] = linked(lab);
    const [them, presharedKey] = [newKey(), newPresharedKey()];
    const keys = [newKey(), newKey()] as const;
    const stock = await startStock(there, {
      addresses: ["10.9.0.2/24"],
      config: configText({
        privateKey: them.privateKey,
        listenPort: PORT,
        peers: [{ publicKey: keys[0].publicKey, allowedIps: "10.9.0.1/32" }],
      }),
    });
    await startHttp(there);
    const start = (key: Key, psk?: string) =>
      startWirebadge(
        here,
        {
          privateKey: key.privateKey,
          listenPort: PORT,
          address: "10.9.0.1/32",
          peers: [{ publicKey: them.publicKey, allowedIps: "10.9.0.2/32", endpoint: ENDPOINT, presharedKey: psk }],
        },
        ["--socks", "127.0.0.1:1080"],
      );
    const reach = () => curl(here, ["--max-time", "20", "http://10.9.0.2:8000/"]);
    const first = await start(keys[0]);
    await reach();
    await stock.setSecret(presharedKey, "peer", keys[0].publicKey, "preshared-key", "#");
    await first.end();
    const second = await start(keys[0], presharedKey);
    await reach();
    await stock.set("peer", keys[1].publicKey, "allowed-ips", "10.9.0.1/32");
    await second.end();
    await start(keys[1]);
    await reach();
    expect((await stock.show("allowed-ips")).get(keys[0].publicKey)).toBe("(none)");
  });

  test("a more specific prefix moves to another peer of the other end, and back: no packet is lost", async () => {
    await using lab = new Lab();
    const [a, b, there] = [lab.namespace("a"), lab.namespace("b"), lab.namespace("there")];
    lab.bridge("switch", [
      { namespace: a, addresses: ["10.1.0.1/24"] },
      { namespace: b, addresses: ["10.1.0.3/24"] },
      { namespace: there, addresses: ["10.1.0.2/24"] },
    ]);
    const [them, ...keys] = [newKey(), newKey(), newKey()];
    const peers = keys.map((key, id) => ({ publicKey: key.publicKey, allowedIps: `10.9.${id + 1}.0/24` }));
    const stock = await startStock(there, {
      addresses: ["10.9.0.2/16"],
      config: configText({ privateKey: them.privateKey, listenPort: PORT, peers }),
    });
    const ends = await Promise.all(
      [a, b].map((namespace, id) =>
        OurEnd.start(namespace, {
          crypto: "native",
          family: "udp4",
          privateKey: keys[id]!.privateKey,
          peerPublicKey: them.publicKey,
          endpoint: ENDPOINT,
          pings: [[`10.9.${id + 1}.5`, "10.9.0.2"]],
        }),
      ),
    );
    const [one, other] = ends as [OurEnd, OurEnd];
    for (const end of ends) await end.until("answers", (report) => report.pongsReceived > 0);
    const pinged = there.run("ping", ["-q", "-i", "0.2", "-c", "90", "-W", "10", "10.9.1.5"]);
    const answered = async (end: OurEnd, what: string): Promise<void> => {
      const { echoesAnswered } = end.latest();
      await end.until(what, (report) => report.echoesAnswered > echoesAnswered + 5);
    };
    await answered(one, "echoes at the one");
    await stock.set("peer", keys[1]!.publicKey, "allowed-ips", "10.9.2.0/24,10.9.1.5/32");
    await answered(other, "echoes at the other");
    // The one may not speak for it any more: the other end drops its pings by their source.
    const { pongsReceived } = await one.until("a report", () => true);
    await delay(3_000);
    expect((await one.until("a report", () => true)).pongsReceived).toBeLessThanOrEqual(pongsReceived + 1);
    await stock.set("peer", keys[1]!.publicKey, "allowed-ips", "10.9.2.0/24");
    await answered(one, "echoes at the one again");
    expect((await pinged).stdout).toContain("90 received, 0% packet loss");
  });

  test("a more specific prefix moves to another peer of ours, and back: none is lost, the old is dropped", async () => {
    await using lab = new Lab();
    const [ours, s1, s2] = [lab.namespace("ours"), lab.namespace("s1"), lab.namespace("s2")];
    lab.bridge("switch", [
      { namespace: ours, addresses: ["10.1.0.1/24"] },
      { namespace: s1, addresses: ["10.1.0.2/24"] },
      { namespace: s2, addresses: ["10.1.0.3/24"] },
    ]);
    const [us, ...keys] = [newKey(), newKey(), newKey()];
    // Both have 10.9.1.5; who of them is spoken to is ours to say.
    const stocks = await Promise.all(
      [s1, s2].map((namespace, id) =>
        startStock(namespace, {
          addresses: ["10.9.1.5/32", `10.9.${id + 1}.1/24`],
          config: configText({
            privateKey: keys[id]!.privateKey,
            listenPort: PORT,
            peers: [{ publicKey: us.publicKey, allowedIps: "10.9.0.1/32", endpoint: `10.1.0.1:${PORT}` }],
          }),
        }),
      ),
    );
    for (const namespace of [s1, s2])
      namespace.ip("route", "add", "10.9.0.1/32", "dev", stocks[namespace === s1 ? 0 : 1]!.name);
    const peers = (moved: boolean) =>
      keys.map((key, id) => ({
        publicKey: key.publicKey,
        allowedIps: [`10.9.${id + 1}.0/24`, ...(moved && id === 1 ? ["10.9.1.5/32"] : [])],
        endpoint: `10.1.0.${id + 2}:${PORT}`,
      }));
    const end = await EngineEnd.start(ours, {
      outer: { privateKey: us.privateKey, addresses: ["10.9.0.1"], mtuBytes: 1420, peers: peers(false) },
      pings: [["10.9.0.1", "10.9.1.5"]],
    });
    const sentBy = async (id: 0 | 1): Promise<number> =>
      Number((await stocks[id]!.show("transfer")).get(us.publicKey)?.split("\t")[1]);
    const speaks = async (id: 0 | 1): Promise<void> => {
      const before = await sentBy(id);
      await until(`answers by the ${id + 1}. peer`, async () => (await sentBy(id)) > before + 1_000 || undefined);
    };
    await speaks(0);
    end.apply(peers(true));
    await speaks(1);
    // The old one goes on from that source: dropped by name.
    await s1.run("ping", ["-c", "2", "-W", "1", "-I", "10.9.1.5", "10.9.0.1"], { check: false });
    await end.until("named drops", ({ outer }) => outer["inbound-source-not-allowed"]! >= 2);
    end.apply(peers(false));
    await speaks(0);
    await end.until("all answers", (report) => report.pingsSent === report.pongsReceived);
  });
});
