// `wirebadge wg --tun` in the hands of stock wg(8): what it shows beside what wireguard-go at the other end shows, and
// what it sets while packets flow.
import { statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { toBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { clampKey } from "../../src/peer/tun/uapi-config.ts";
import { UAPI_FOLDER } from "../../src/peer/tun/uapi-server.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { until } from "../scripts/program.ts";
import { fetchedHash } from "./fetched.ts";
import { hashOfBlob } from "./http-target.ts";
import { type StockEnd, startStock } from "./stock-wireguard.ts";
import { A, B, type ConfigOptions, configOf, deviceOf, joined, publicKeyOf, serve, TunEnd } from "./tun-end.ts";

const BLOB_BYTES = 20_000_000;
const NEW_HANDSHAKE_MS = 15_000; // an initiation that is lost is sent again after 5 s
const DEVICE = deviceOf(A);

const secret = (fill: number): Uint8Array => new Uint8Array(32).fill(fill);

class Ends implements AsyncDisposable {
  readonly a: Namespace;
  readonly b: Namespace;
  readonly ours: TunEnd;
  readonly theirs: StockEnd;

  private constructor(namespaces: { a: Namespace; b: Namespace }, ours: TunEnd, theirs: StockEnd) {
    this.a = namespaces.a;
    this.b = namespaces.b;
    this.ours = ours;
    this.theirs = theirs;
  }

  /** Ours in "a", wireguard-go in "b", with a handshake done. */
  static async start(lab: Lab, config: ConfigOptions = {}): Promise<Ends> {
    const namespaces = joined(lab);
    const theirs = await startStock(namespaces.b, {
      config: configOf(B, A, { plain: true }),
      addresses: [`${B.inside[4]}/24`, `${B.inside[6]}/64`],
    });
    const ours = await TunEnd.start(A, namespaces.a, configOf(A, B, config));
    const ends = new Ends(namespaces, ours, theirs);
    await ends.reach();
    return ends;
  }

  /** An echo comes back, at the latest when a handshake is made anew. */
  async reach(host: string = B.inside[4], patienceMs = NEW_HANDSHAKE_MS): Promise<void> {
    await until(`an answer of ${host}`, () => this.ping(host), patienceMs);
  }

  async ping(host: string = B.inside[4]): Promise<boolean> {
    const ran = await this.a.run(requireTool("ping"), ["-c", "1", "-W", "1", host], { check: false });
    return ran.code === 0;
  }

  async wg(...words: readonly string[]): Promise<string> {
    return (await this.a.run(requireTool("wg"), words)).stdout;
  }

  /** `wg set`; a text that stands for a file is given as `{ file }`. */
  async set(...words: readonly (string | { readonly file: string })[]): Promise<void> {
    const args = words.map((word, at) => {
      if (typeof word === "string") return word;
      const path = join(this.ours.folder, `${at}`);
      writeFileSync(path, word.file, { mode: 0o600 });
      return path;
    });
    await this.wg("set", DEVICE, ...args);
  }

  /** public key → what is shown of that peer. */
  async show(what: "latest-handshakes" | "endpoints" | "transfer" | "allowed-ips"): Promise<Map<string, string>> {
    const rows = (await this.wg("show", DEVICE, what)).split("\n").filter(Boolean);
    return new Map(rows.map((row) => [row.slice(0, row.indexOf("\t")), row.slice(row.indexOf("\t") + 1)]));
  }

  async handshakeSeconds(): Promise<number> {
    return Number((await this.show("latest-handshakes")).get(publicKeyOf(B)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.ours[Symbol.asyncDispose]();
  }
}

/** Received, sent. */
const counts = (shown: string | undefined): number[] => (shown ?? "").split("\t").map(Number);

/** Echo requests, 20 a second for 5 s; how many of them were not answered in the end. */
async function lostPings(namespace: Namespace, host: string): Promise<number> {
  const ran = await namespace.run(requireTool("ping"), ["-q", "-c", "100", "-i", "0.05", "-W", "2", host], {
    check: false,
  });
  return 100 - Number(/ (\d+) received/.exec(ran.stdout)?.[1]);
}

describe.runIf(needs("root", "tun", "netns", "wg", "wireguard-go", "curl", "ping"))("wg(8) on a TUN device", () => {
  test("shows what the other end shows of 20 MB, the handshake and the endpoint, and the file's settings", async () => {
    await using lab = new Lab();
    await using ends = await Ends.start(lab);
    await serve(ends.b);
    expect(await fetchedHash(ends.a, B.inside[4], 8_000, BLOB_BYTES, { maxSeconds: 60 })).toBe(hashOfBlob(BLOB_BYTES));
    await until("equal counters", async () => {
      const [received, sent] = counts((await ends.show("transfer")).get(publicKeyOf(B)));
      const [theirReceived, theirSent] = counts((await ends.theirs.show("transfer")).get(publicKeyOf(A)));
      if (received! < BLOB_BYTES) return false;
      // What a full socket buffer dropped was sent and not received.
      return sent === theirReceived && received! <= theirSent! && received! > 0.98 * theirSent!;
    });
    const at = await ends.handshakeSeconds();
    expect(Math.abs(at - (await ends.theirs.latestHandshake()))).toBeLessThanOrEqual(1);
    expect(Math.abs(at - Date.now() / 1_000)).toBeLessThan(60);
    expect((await ends.show("endpoints")).get(publicKeyOf(B))).toBe(`${B.outside[4]}:51820`);
    const written = (text: string): string[] => text.replaceAll(" ", "").split("\n").filter(Boolean).sort();
    const file = configOf({ ...A, privateKey: clampKey(A.privateKey) }, B, { plain: true }); // as every device shows it
    expect(written(await ends.wg("showconf", DEVICE))).toEqual(written(file));
    expect(statSync(join(UAPI_FOLDER, `${DEVICE}.sock`)).mode & 0o777).toBe(0o600);
  });

  test("adds and removes a peer while packets to another flow, none of which is lost", async () => {
    await using lab = new Lab();
    await using ends = await Ends.start(lab);
    const c = lab.namespace("c");
    lab.link({ namespace: ends.a, addresses: ["10.3.0.1/24"] }, { namespace: c, addresses: ["10.3.0.3/24"] });
    const key = toBase64(new PortableCrypto().publicKey(secret(0x43)));
    await startStock(c, {
      config: [
        "[Interface]",
        `PrivateKey = ${toBase64(secret(0x43))}`,
        "ListenPort = 51820",
        "[Peer]",
        `PublicKey = ${publicKeyOf(A)}`,
        `AllowedIPs = ${A.inside[4]}/32`,
      ].join("\n"),
      addresses: ["10.9.0.3/24"],
    });
    const handshake = await ends.handshakeSeconds();
    const lost = lostPings(ends.a, B.inside[4]);
    await ends.set("peer", key, "endpoint", "10.3.0.3:51820", "allowed-ips", "10.9.0.3/32");
    await ends.reach("10.9.0.3");
    expect((await ends.show("allowed-ips")).get(key)).toBe("10.9.0.3/32");
    expect(counts((await ends.show("transfer")).get(key))[0]).toBeGreaterThan(0);
    await ends.set("peer", key, "remove");
    expect(await ends.ping("10.9.0.3")).toBe(false);
    expect(await lost).toBe(0);
    expect([...(await ends.show("endpoints")).keys()]).toEqual([publicKeyOf(B)]);
    expect(await ends.handshakeSeconds()).toBe(handshake);
  });

  test("another listen port: a download goes on and is whole, counters and peers stay", async () => {
    await using lab = new Lab();
    await using ends = await Ends.start(lab);
    await serve(ends.b);
    const download = fetchedHash(ends.a, B.inside[4], 8_000, BLOB_BYTES, { rate: "4M", maxSeconds: 60 });
    await until("half of it", async () => counts((await ends.show("transfer")).get(publicKeyOf(B)))[0]! > 6_000_000);
    const [before] = counts((await ends.show("transfer")).get(publicKeyOf(B)));
    await ends.set("listen-port", "51999");
    expect((await ends.wg("show", DEVICE, "listen-port")).trim()).toBe("51999");
    expect(counts((await ends.show("transfer")).get(publicKeyOf(B)))[0]).toBeGreaterThanOrEqual(before!);
    await until("it at the other end", async () =>
      (await ends.theirs.show("endpoints")).get(publicKeyOf(A))?.endsWith(":51999"),
    );
    expect(await download).toBe(hashOfBlob(BLOB_BYTES));
    await bound(ends.a, 51820, async () => {
      await expect(ends.set("listen-port", "51820")).rejects.toThrow(/Address already in use/);
      expect((await ends.wg("show", DEVICE, "listen-port")).trim()).toBe("51999");
      expect(await ends.ping()).toBe(true);
    });
    await ends.set("listen-port", "51820");
    await ends.reach();
  });

  test("a wrong preshared key ends the talk at the next handshake; the right one mends it", async () => {
    await using lab = new Lab();
    await using ends = await Ends.start(lab);
    const [right] = /PresharedKey = (.*)/.exec(configOf(A, B))!.slice(1);
    await ends.set("peer", publicKeyOf(B), "preshared-key", { file: toBase64(secret(8)) });
    expect(await ends.ping()).toBe(true);
    await ends.set("listen-port", "51998"); // a handshake
    await delay(1_000);
    expect(await ends.ping()).toBe(false);
    await ends.set("peer", publicKeyOf(B), "preshared-key", { file: right! });
    await ends.reach();
  });

  test("another private key, known to the other end, and none at all: peers are kept and nothing is sent", async () => {
    await using lab = new Lab();
    await using ends = await Ends.start(lab);
    const key = toBase64(new PortableCrypto().publicKey(secret(0x48)));
    const psk = toBase64(secret(7));
    const more = ["allowed-ips", `${A.inside[4]}/32,${A.inside[6]}/128`, "preshared-key", "#"];
    await ends.theirs.set("peer", publicKeyOf(A), "remove");
    await ends.theirs.setSecret(psk, "peer", key, ...more);
    await ends.set("private-key", { file: toBase64(secret(0x48)) });
    expect((await ends.wg("show", DEVICE, "public-key")).trim()).toBe(key);
    await ends.reach();

    await ends.set("private-key", "/dev/null");
    expect((await ends.wg("show", DEVICE, "public-key")).trim()).toBe("(none)");
    expect([...(await ends.show("allowed-ips")).keys()]).toEqual([publicKeyOf(B)]);
    const before = await ends.show("transfer");
    const [sentBefore] = counts((await ends.theirs.show("transfer")).get(key));
    expect(await ends.ping()).toBe(false);
    expect(await ends.show("transfer")).toEqual(before);
    expect(counts((await ends.theirs.show("transfer")).get(key))[0]).toBe(sentBefore);
    await ends.set("private-key", { file: toBase64(secret(0x48)) });
    await ends.reach();
  });

  test("`wg syncconf` with the same file: no handshake, no packet lost, also with a default route", async () => {
    for (const isDefault of [false, true]) {
      await using lab = new Lab();
      await using ends = await Ends.start(lab);
      const { a, ours } = ends;
      if (isDefault) await ours[Symbol.asyncDispose]();
      const toAll = (text: string): string => text.replace(/AllowedIPs = .*/, "AllowedIPs = 0.0.0.0/0");
      const end = isDefault ? await TunEnd.start(A, a, toAll(configOf(A, B))) : ours;
      await using _end = end;
      await ends.reach();
      const handshake = await ends.handshakeSeconds();
      const mark = (await ends.wg("show", DEVICE, "fwmark")).trim();
      expect(mark).toBe(isDefault ? "0xca6c" : "off");
      const lost = lostPings(a, B.inside[4]);
      const file = join(end.folder, "plain.conf");
      const plain = configOf(A, B, { plain: true });
      writeFileSync(file, isDefault ? toAll(plain) : plain, { mode: 0o600 });
      for (let i = 0; i < 3; i++) await ends.wg("syncconf", DEVICE, file);
      expect(await lost).toBe(0);
      expect(await ends.handshakeSeconds()).toBe(handshake);
      expect((await ends.wg("show", DEVICE, "fwmark")).trim()).toBe(mark);
    }
  });

  test("a peer that has roamed stays there when other settings change, and goes where it is said to be", async () => {
    await using lab = new Lab();
    await using ends = await Ends.start(lab);
    await ends.theirs.set("listen-port", "51777");
    await until("it to have roamed", async () => {
      await ends.b.run(requireTool("ping"), ["-c", "1", "-W", "1", A.inside[4]], { check: false });
      return (await ends.show("endpoints")).get(publicKeyOf(B)) === `${B.outside[4]}:51777`;
    });
    await ends.set("peer", publicKeyOf(B), "persistent-keepalive", "25");
    await ends.set("listen-port", "51997");
    expect((await ends.show("endpoints")).get(publicKeyOf(B))).toBe(`${B.outside[4]}:51777`);
    await ends.reach();
    await ends.set("peer", publicKeyOf(B), "endpoint", `[${B.outside[6]}]:51777`);
    expect((await ends.show("endpoints")).get(publicKeyOf(B))).toBe(`[${B.outside[6]}]:51777`);
    await ends.reach();
    expect((await ends.theirs.show("endpoints")).get(publicKeyOf(A))).toBe(`[${A.outside[6]}]:51997`);
  });

  test("its socket deleted ends the device, as the protocol has it", async () => {
    await using lab = new Lab();
    await using ends = await Ends.start(lab);
    await ends.a.run("rm", [join(UAPI_FOLDER, `${DEVICE}.sock`)]);
    expect(await ends.ours.program.exited).toBe(0);
    expect(ends.a.ip("link", "show")).not.toContain(DEVICE);
  });
});

/** While a UDP port of both families is another's. */
async function bound(namespace: Namespace, port: number, work: () => Promise<void>): Promise<void> {
  const code = `require("dgram").createSocket("udp6").bind(${port}, () => console.log("bound"))`;
  const child = namespace.spawn(process.execPath, ["-e", code], { stdio: ["ignore", "pipe", "inherit"] });
  await new Promise<void>((resolve) => child.stdout?.once("data", () => resolve()));
  await work();
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill();
  await gone;
}
