// What WireGuard's own netns test shows [netns.sh], of `wirebadge wg --tun` in the hands of wg(8): tunnels in tunnels,
// packets of every length up to the MTU, prefixes that move between peers, forged inner sources, keys that change while
// packets flow, its own key and a key of zeros as a peer. Roaming: roaming.test.ts.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { fetchedHash } from "../interop/fetched.ts";
import { hashOfBlob } from "../interop/http-target.ts";
import { type Stock, startStock } from "../interop/stock-wireguard.ts";
import {
  type ConfigLines,
  configText,
  newKey,
  newPresharedKey,
  type PeerLines,
  startHttp,
  startWirebadge,
} from "../interop/wg-scenario.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { LONG, record } from "../proof/form.ts";
import { type Program, until } from "../scripts/program.ts";

const SWEEP = new URL("../interop/udp-sweep.ts", import.meta.url).pathname;
const PORT = 51_820;
const BLOB_BYTES = 5_000_000;

/** UAPI sockets lie in a folder that all namespaces share. */
let devices = 0;
const newDevice = (): string => `wbn${process.pid}x${devices++}`;

interface Linked {
  readonly a: Namespace;
  readonly b: Namespace;
}

function linked(lab: Lab): Linked {
  const [a, b] = [lab.namespace("a"), lab.namespace("b")];
  lab.link({ namespace: a, addresses: ["10.1.0.1/24"] }, { namespace: b, addresses: ["10.1.0.2/24"] });
  return { a, b };
}

interface Running {
  readonly name: string;
  /** Ours alone. */
  readonly program: Program | undefined;
}

/** Ours or another's, with addresses that have prefix lengths. */
async function startLayer(
  kind: "wirebadge" | Stock,
  namespace: Namespace,
  config: ConfigLines,
  addresses: readonly string[],
  mtu = 1420,
): Promise<Running> {
  if (kind !== "wirebadge") {
    const { name } = await startStock(namespace, { stock: kind, addresses, mtu, config: configText(config) });
    return { name, program: undefined };
  }
  const name = newDevice();
  const whole = { ...config, mtu, address: addresses.join(", ") };
  return { name, program: await startWirebadge(namespace, whole, ["--tun", name]) };
}

async function reaches(namespace: Namespace, host: string, ...more: readonly string[]): Promise<boolean> {
  const ran = await namespace.run(requireTool("ping"), ["-c", "1", "-W", "1", ...more, host], { check: false });
  return ran.code === 0;
}

/** Echo requests, 20 a second; how many of them were not answered in the end. */
async function lostPings(namespace: Namespace, host: string, count: number): Promise<number> {
  const words = ["-q", "-c", String(count), "-i", "0.05", "-W", "3", host];
  const ran = await namespace.run(requireTool("ping"), words, { check: false });
  return count - Number(/ (\d+) received/.exec(ran.stdout)?.[1]);
}

/** `wg WORDS…`; what stands for a file is given as `{ file }`. */
async function wg(namespace: Namespace, ...words: readonly (string | { readonly file: string })[]): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "wirebadge-netns-"));
  try {
    const args = words.map((word, at) => {
      if (typeof word === "string") return word;
      writeFileSync(join(folder, `${at}`), word.file, { mode: 0o600 });
      return join(folder, `${at}`);
    });
    return (await namespace.run(requireTool("wg"), args)).stdout;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const needed = needs("root", "tun", "netns", "ping", "wg", "curl", "wireguard-go", "wireguard-go-debian");

const NESTED = [
  ["wirebadge", "wirebadge", "must be cut into fragments", 1420],
  ["wireguard-go", "wirebadge", "must be cut into fragments", 1420],
  ...(LONG
    ? ([
        ["wirebadge", "wirebadge", "fits", 1340],
        ["wirebadge", "wireguard-go-debian", "fits", 1340],
      ] as const)
    : []),
] as const;

describe.runIf(needed)("over TUN devices, a tunnel inside a tunnel", () => {
  // The newest wireguard-go inside sends what is too large for the tunnel around it in one call, which fails: Debian's.
  test.each(NESTED)(
    "%s around %s, where a full packet %s: byte for byte, both ways",
    async (outer, inner, _what, mtu) => {
      await using lab = new Lab();
      const { a, b } = linked(lab);
      for (const [kind, net, port, around, width] of [
        [outer, "10.8.0", PORT, "10.1.0", 1420],
        [inner, "10.9.0", PORT + 1, "10.8.0", mtu],
      ] as const) {
        const keys = [newKey(), newKey()] as const;
        for (const [i, namespace] of [a, b].entries()) {
          const peer: PeerLines = {
            publicKey: keys[1 - i]!.publicKey,
            allowedIps: `${net}.${2 - i}/32`,
            endpoint: `${around}.${2 - i}:${port}`,
          };
          const config = { privateKey: keys[i]!.privateKey, listenPort: port, peers: [peer] };
          await startLayer(kind, namespace, config, [`${net}.${i + 1}/24`], width);
        }
      }
      await Promise.all([startHttp(a), startHttp(b)]);
      expect(await fetchedHash(a, "10.9.0.2", 8_000, BLOB_BYTES, { maxSeconds: 60 })).toBe(hashOfBlob(BLOB_BYTES));
      expect(await fetchedHash(b, "10.9.0.1", 8_000, BLOB_BYTES, { maxSeconds: 60 })).toBe(hashOfBlob(BLOB_BYTES));
    },
  );
});

const SWEEPS = [
  ["wireguard-go", 1389],
  ["boringtun-cli", 1420],
  ...(LONG
    ? ([
        ["wireguard-go", 1420],
        ["wireguard-go-debian", 1389],
        ["boringtun-cli", 1389],
        ["wirebadge", 1389],
        ["wirebadge", 1280],
        ["wirebadge", 8920],
      ] as const)
    : []),
] as const;

describe.runIf(needed && needs("boringtun-cli"))("over a TUN device, every length up to the MTU", () => {
  test.each(SWEEPS)("goes to %s and comes back, MTU %i; one byte more is refused by the host", async (kind, mtu) => {
    await using lab = new Lab();
    const { a, b } = linked(lab);
    for (const namespace of [a, b]) namespace.ip("link", "set", "eth0", "mtu", String(mtu + 80));
    const [us, them] = [newKey(), newKey()];
    const peerOf = (key: string, host: 1 | 2): PeerLines => ({
      publicKey: key,
      allowedIps: `10.9.0.${host}/32, fd09::${host}/128`,
      endpoint: `10.1.0.${host}:${PORT}`,
    });
    const theirs = { privateKey: them.privateKey, listenPort: PORT, peers: [peerOf(us.publicKey, 1)] };
    await startLayer(kind, b, theirs, ["10.9.0.2/24", "fd09::2/64"], mtu);
    const ours = { privateKey: us.privateKey, listenPort: PORT, peers: [peerOf(them.publicKey, 2)] };
    await startLayer("wirebadge", a, ours, ["10.9.0.1/24", "fd09::1/64"], mtu);
    const server = b.spawn(process.execPath, [SWEEP, "serve"], { stdio: ["ignore", "pipe", "inherit"] });
    await new Promise<void>((resolve) => server.stdout?.once("data", () => resolve()));
    for (const [host, headers] of [
      ["10.9.0.2", 28],
      ["fd09::2", 48],
    ] as const) {
      await until("an answer", () => reaches(a, host));
      const words = [SWEEP, host, "0", String(mtu - headers)];
      expect((await a.run(process.execPath, words, { timeoutMs: 120_000 })).stdout.trim()).toBe("[]");
      expect(await reaches(a, host, "-M", "do", "-s", String(mtu - headers))).toBe(true);
      expect(await reaches(a, host, "-M", "do", "-s", String(mtu - headers + 1))).toBe(false);
    }
    record({ what: `datagrams of every length over a TUN device, ${kind}, MTU ${mtu}`, count: 2 * mtu - 74 });
  });
});

describe.runIf(needed)("over a TUN device, by wg(8), while packets flow", () => {
  test("a more specific prefix moves to another peer, and back: none is lost; the former is dropped", async () => {
    await using lab = new Lab();
    const [a, one, other] = [lab.namespace("a"), lab.namespace("one"), lab.namespace("other")];
    lab.bridge("switch", [
      { namespace: a, addresses: ["10.1.0.1/24"] },
      { namespace: one, addresses: ["10.1.0.2/24"] },
      { namespace: other, addresses: ["10.1.0.3/24"] },
    ]);
    const [us, ...keys] = [newKey(), newKey(), newKey()];
    // Both have 10.9.1.5; who of them is spoken to is ours to say.
    for (const [i, namespace] of [one, other].entries()) {
      const peer = { publicKey: us.publicKey, allowedIps: "10.9.0.1/32", endpoint: `10.1.0.1:${PORT}` };
      const config = { privateKey: keys[i]!.privateKey, listenPort: PORT, peers: [peer] };
      const { name } = await startLayer("wireguard-go", namespace, config, [`10.9.${i + 1}.1/24`, "10.9.1.5/32"]);
      namespace.ip("route", "add", "10.9.0.1/32", "dev", name);
    }
    const peers = keys.map(({ publicKey }, i) => ({
      publicKey,
      allowedIps: `10.9.${i + 1}.0/24`,
      endpoint: `10.1.0.${i + 2}:${PORT}`,
    }));
    const config = { privateKey: us.privateKey, listenPort: PORT, peers };
    const { name, program } = await startLayer("wirebadge", a, config, ["10.9.0.1/16"]);
    await until("both", async () => (await reaches(a, "10.9.1.1")) && (await reaches(a, "10.9.2.1")));
    const receivedBy = async (i: number): Promise<number> => {
      const rows = (await wg(a, "show", name, "transfer")).split("\n");
      return Number(rows.find((row) => row.startsWith(keys[i]!.publicKey))?.split("\t")[1]);
    };
    const answers = async (i: number): Promise<void> => {
      const before = await receivedBy(i);
      await until(`answers by ${i}`, async () => (await receivedBy(i)) > before + 1_000);
    };
    const lost = lostPings(a, "10.9.1.5", 160);
    await answers(0);
    const second = keys[1]!.publicKey;
    await wg(a, "set", name, "peer", second, "allowed-ips", "10.9.2.0/24,10.9.1.5/32");
    await answers(1);
    // The former goes on from that source, and from one that was never its own.
    expect(await reaches(one, "10.9.0.1", "-I", "10.9.1.5")).toBe(false);
    one.addAddress("lo", "10.9.77.7/32");
    expect(await reaches(one, "10.9.0.1", "-I", "10.9.77.7")).toBe(false);
    await wg(a, "set", name, "peer", second, "allowed-ips", "10.9.2.0/24");
    await answers(0);
    expect(await lost).toBe(0);
    expect(await program!.end()).toBe(0);
    const said = program!.records.find((row) => row["event"] === "counters")?.["counters"] as Record<string, number>;
    expect(said["inbound-source-not-allowed"]).toBeGreaterThanOrEqual(2);
  });

  test("the preshared key at both ends: none is lost; then another key of theirs, told to ours", async () => {
    await using lab = new Lab();
    const { a, b } = linked(lab);
    const [us, them, next] = [newKey(), newKey(), newKey()];
    const theirPeer = { publicKey: us.publicKey, allowedIps: "10.9.0.1/32" };
    const theirs = { privateKey: them.privateKey, listenPort: PORT, peers: [theirPeer] };
    const their = await startLayer("wireguard-go", b, theirs, ["10.9.0.2/24"]);
    const peer = { publicKey: them.publicKey, allowedIps: "10.9.0.2/32", endpoint: `10.1.0.2:${PORT}` };
    const ours = { privateKey: us.privateKey, listenPort: PORT, peers: [peer] };
    const our = await startLayer("wirebadge", a, ours, ["10.9.0.1/24"]);
    await until("an answer", () => reaches(a, "10.9.0.2"));
    const lost = Promise.all([lostPings(a, "10.9.0.2", 80), lostPings(b, "10.9.0.1", 80)]);
    const psk = { file: newPresharedKey() };
    await wg(b, "set", their.name, "peer", us.publicKey, "preshared-key", psk);
    await wg(a, "set", our.name, "peer", them.publicKey, "preshared-key", psk);
    expect(await lost).toEqual([0, 0]);
    await wg(a, "set", our.name, "listen-port", "51999"); // a handshake, under the new one
    await until("an answer", () => reaches(b, "10.9.0.1"));
    await wg(b, "set", their.name, "private-key", { file: next.privateKey });
    await wg(a, "set", our.name, "peer", them.publicKey, "remove");
    const told = ["allowed-ips", "10.9.0.2/32", "endpoint", `10.1.0.2:${PORT}`, "preshared-key", psk] as const;
    await wg(a, "set", our.name, "peer", next.publicKey, ...told);
    await until("an answer", () => reaches(a, "10.9.0.2"), 15_000);
  });

  test("its own key as a peer, a peer's key as its own: that peer is none; a key of zeros reaches nobody", async () => {
    await using lab = new Lab();
    const { a, b } = linked(lab);
    const [us, them] = [newKey(), newKey()];
    const theirPeer = { publicKey: us.publicKey, allowedIps: "10.9.0.1/32" };
    await startLayer("wirebadge", b, { ...them, listenPort: PORT, peers: [theirPeer] }, ["10.9.0.2/24"]);
    const peer = { publicKey: them.publicKey, allowedIps: "10.9.0.2/32", endpoint: `10.1.0.2:${PORT}` };
    const own = { publicKey: us.publicKey, allowedIps: "10.9.0.0/24" };
    const { name, program } = await startLayer("wirebadge", a, { ...us, listenPort: PORT, peers: [peer, own] }, [
      "10.9.0.1/24",
    ]);
    const peers = async (): Promise<string[]> =>
      (await wg(a, "show", name, "peers")).split("\n").filter((line) => line !== "");
    expect(await peers()).toEqual([them.publicKey]);
    await wg(a, "set", name, "peer", us.publicKey, "allowed-ips", "10.9.0.2/32");
    expect(await peers()).toEqual([them.publicKey]);
    const zeros = Buffer.alloc(32).toString("base64");
    await wg(a, "set", name, "peer", zeros, "allowed-ips", "10.9.0.3/32", "endpoint", `10.1.0.2:${PORT}`);
    expect(await reaches(a, "10.9.0.3")).toBe(false);
    await until("an answer", () => reaches(a, "10.9.0.2"));
    await wg(a, "set", name, "peer", zeros, "remove");
    await wg(a, "set", name, "private-key", { file: them.privateKey });
    expect(await peers()).toEqual([]);
    await wg(a, "set", name, "private-key", { file: us.privateKey });
    await wg(a, "set", name, "peer", them.publicKey, "allowed-ips", "10.9.0.2/32", "endpoint", `10.1.0.2:${PORT}`);
    await until("an answer", () => reaches(a, "10.9.0.2"));
    expect(program!.alive).toBe(true);
  });
});
