// The UAPI server with stock clients and beside a stock server: wg(8) shows, sets and synchronises a device that is
// only values; and whatever is set, wireguard-go then shows the same.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { fromBase64, toBase64, toHex } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { parseUapiRequest, UAPI_ERRNO, type UapiChange, type UapiDevice } from "../../src/peer/tun/uapi-codec.ts";
import { changeDevice, type DeviceConfig } from "../../src/peer/tun/uapi-config.ts";
import { UAPI_FOLDER, type UapiBackend, UapiServer } from "../../src/peer/tun/uapi-server.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { startWireguardGo } from "./stock-wireguard.ts";

const NAME = `wbu${process.pid}`;
const crypto = new PortableCrypto();
const privateKey = (fill: number): Uint8Array => new Uint8Array(32).fill(fill);
const publicKey = (fill: number): Uint8Array => crypto.publicKey(privateKey(fill));
const [OWN, A, B, PSK] = [
  toBase64(privateKey(0x40)),
  toBase64(publicKey(0x41)),
  toBase64(publicKey(0x42)),
  toBase64(privateKey(9)),
];

/** A device that is only values. */
class Backend implements UapiBackend {
  config: DeviceConfig = { privateKey: undefined, listenPort: 51820, fwMark: 0, peers: new Map() };

  async get(): Promise<UapiDevice> {
    const peers = [...this.config.peers.values()].map((peer) => ({
      ...peer,
      allowedIps: peer.allowedIps.values(),
      lastHandshakeMs: toBase64(peer.publicKey) === A ? 1_700_000_000_500 : 0,
      sentBytes: 1_536,
      receivedBytes: 2 ** 41,
    }));
    return { ...this.config, peers };
  }

  async set(change: UapiChange): Promise<number> {
    if (change.listenPort === 1) return UAPI_ERRNO.EADDRINUSE;
    const changed = changeDevice(this.config, change, (key) => crypto.publicKey(key));
    if (typeof changed === "number") return changed;
    this.config = changed;
    return UAPI_ERRNO.OK;
  }
}

let server: UapiServer | undefined;
afterEach(() => server?.close());

async function serve(readOnly = false): Promise<{ backend: Backend; refused: () => number }> {
  const backend = new Backend();
  let refused = 0;
  server = await UapiServer.open({
    name: NAME,
    backend,
    readOnly,
    onRefusedSet: () => void refused++,
    onFailure: (error) => expect.unreachable(String(error)),
  });
  return { backend, refused: () => refused };
}

/** `wg` in a namespace; secrets and files by their content: `#0` stands for the first. */
async function wg(namespace: Namespace, args: readonly string[], ...files: readonly string[]) {
  const folder = await mkdtemp(join(tmpdir(), "wirebadge-wg-"));
  try {
    const paths = await Promise.all(
      files.map(async (text, at) => {
        const path = join(folder, `${at}`);
        await writeFile(path, text, { mode: 0o600 });
        return path;
      }),
    );
    const given = args.map((arg) => (/^#\d$/.test(arg) ? paths[Number(arg.slice(1))]! : arg));
    return await namespace.run(requireTool("wg"), given, { check: false });
  } finally {
    await rm(folder, { recursive: true });
  }
}

const CONFIG = `[Interface]
PrivateKey = ${OWN}
ListenPort = 51900
FwMark = 0xca6c

[Peer]
PublicKey = ${A}
PresharedKey = ${PSK}
AllowedIPs = 10.9.0.0/24, fd09::/64
Endpoint = 192.0.2.1:51821
PersistentKeepalive = 25

[Peer]
PublicKey = ${B}
AllowedIPs = 10.8.0.0/16
Endpoint = [2001:db8::1]:51822
`;

describe.runIf(needs("netns", "wg"))("stock wg(8)", () => {
  test("sets, shows, adds, synchronises and removes", async () => {
    await using lab = new Lab();
    const namespace = lab.namespace("a");
    const { backend } = await serve();
    expect(await wg(namespace, ["setconf", NAME, "#0"], CONFIG)).toMatchObject({ code: 0, stderr: "" });
    expect((await wg(namespace, ["show", "interfaces"])).stdout.split(/\s+/)).toContain(NAME);
    expect((await wg(namespace, ["show", NAME, "dump"])).stdout.split("\n")).toEqual([
      [OWN, toBase64(publicKey(0x40)), 51900, "0xca6c"].join("\t"),
      [A, PSK, "192.0.2.1:51821", "10.9.0.0/24,fd09::/64", 1_700_000_000, 2 ** 41, 1_536, 25].join("\t"),
      [B, "(none)", "[2001:db8::1]:51822", "10.8.0.0/16", 0, 2 ** 41, 1_536, "off"].join("\t"),
      "",
    ]);
    const shown = (await wg(namespace, ["show", NAME])).stdout;
    for (const line of ["listening port: 51900", "fwmark: 0xca6c", "persistent keepalive: every 25 seconds"]) {
      expect(shown).toContain(line);
    }
    expect(shown).toContain("transfer: 2.00 TiB received, 1.50 KiB sent");
    // What it prints as a configuration is the configuration.
    const printed = (await wg(namespace, ["showconf", NAME])).stdout;
    const before = backend.config;
    expect(await wg(namespace, ["setconf", NAME, "#0"], printed)).toMatchObject({ code: 0 });
    expect(backend.config).toEqual(before);

    const set = ["set", NAME, "listen-port", "51901", "peer", B, "preshared-key", "#0", "allowed-ips", "10.9.0.0/24"];
    expect(await wg(namespace, set, PSK)).toMatchObject({ code: 0, stderr: "" });
    expect(allowed(backend)).toEqual({ [A]: ["fd09::/64"], [B]: ["10.9.0.0/24"] });
    expect(backend.config.listenPort).toBe(51901);
    expect(backend.config.peers.get(toHex(fromBase64(B)!))?.presharedKey).toEqual(privateKey(9));

    const more = `[Peer]\nPublicKey = ${A}\nAllowedIPs = 10.7.0.0/16\n`;
    expect(await wg(namespace, ["addconf", NAME, "#0"], more)).toMatchObject({ code: 0 });
    expect(allowed(backend)).toEqual({ [A]: ["10.7.0.0/16"], [B]: ["10.9.0.0/24"] });

    const wanted = CONFIG.split("\n[Peer]").slice(0, 2).join("\n[Peer]");
    expect(await wg(namespace, ["syncconf", NAME, "#0"], wanted)).toMatchObject({ code: 0, stderr: "" });
    expect(allowed(backend)).toEqual({ [A]: ["10.9.0.0/24", "fd09::/64"] });
    expect(backend.config).toMatchObject({ listenPort: 51900, fwMark: 0xca6c });

    const none = ["set", NAME, "private-key", "/dev/null", "fwmark", "off", "peer", A, "preshared-key", "/dev/null"];
    expect(await wg(namespace, none)).toMatchObject({ code: 0 });
    expect(backend.config).toMatchObject({ privateKey: undefined, fwMark: 0 });
    expect(await wg(namespace, ["set", NAME, "peer", A, "remove"])).toMatchObject({ code: 0 });
    expect(backend.config.peers.size).toBe(0);
  });

  test("the device's errno is what wg(8) says", async () => {
    await using lab = new Lab();
    const { backend } = await serve();
    const before = backend.config;
    const ran = await wg(lab.namespace("a"), ["set", NAME, "listen-port", "1", "fwmark", "7"]);
    expect(ran).toMatchObject({ code: 1, stderr: "Unable to modify interface: Address already in use\n" });
    expect(backend.config).toBe(before);
  });

  test("read-only: shown without keys, and not to be set", async () => {
    await using lab = new Lab();
    const namespace = lab.namespace("a");
    const { backend, refused } = await serve(true);
    const request = parseUapiRequest(
      `set=1\nprivate_key=${toHex(privateKey(0x40))}\npublic_key=${toHex(publicKey(0x41))}`,
    );
    await backend.set((request as { change: UapiChange }).change);
    const before = backend.config;
    expect((await wg(namespace, ["show", NAME, "private-key"])).stdout).toBe("(none)\n");
    expect((await wg(namespace, ["show", NAME, "preshared-keys"])).stdout).toBe(`${A}\t(none)\n`);
    expect((await wg(namespace, ["show", NAME, "latest-handshakes"])).stdout).toBe(`${A}\t1700000000\n`);
    const ran = await wg(namespace, ["set", NAME, "fwmark", "7"]);
    expect(ran).toMatchObject({ code: 1, stderr: "Unable to modify interface: Operation not permitted\n" });
    expect(refused()).toBe(1);
    expect(backend.config).toBe(before);
  });
});

function allowed(backend: Backend): Record<string, string[]> {
  const rows = [...backend.config.peers.values()];
  return Object.fromEntries(rows.map((peer) => [toBase64(peer.publicKey), [...peer.allowedIps.keys()]]));
}

/** One request, one answer. */
function ask(path: string, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path }, () => socket.write(text));
    let answer = "";
    socket.setEncoding("latin1").on("data", (chunk: string) => {
      answer += chunk;
      if (answer.endsWith("\n\n")) socket.destroy();
    });
    socket.once("error", reject);
    socket.once("close", () => resolve(answer));
  });
}

/** An answer to a get as a value, without what only a running device knows, whatever the order. */
function settings(answer: string): Record<string, unknown> {
  const [device = "", ...peers] = answer.split(/^(?=public_key=)/m);
  const zeroKey = /^preshared_key=0{64}$/;
  const lines = (text: string): string[] =>
    text
      .split("\n")
      .filter((line) => line !== "" && !/^(?:last_handshake|tx_bytes|rx_bytes|errno)/.test(line) && !zeroKey.test(line))
      .sort();
  return { device: lines(device), peers: peers.map(lines).sort() };
}

const peerKey = fc.integer({ min: 0x41, max: 0x44 }).map((fill) => `public_key=${toHex(publicKey(fill))}`);
const prefix = fc.constantFrom(
  "10.0.0.0/8",
  "10.1.0.0/16",
  "10.1.2.3/32",
  "fd00::/16",
  "fd00::1/128",
  "0.0.0.0/0",
  "::/0",
);
const peerLine = fc.oneof(
  prefix.map((text) => `allowed_ip=${text}`),
  prefix.map((text) => `allowed_ip=${text}`),
  fc.constantFrom(
    "remove=true",
    "update_only=true",
    "replace_allowed_ips=true",
    "protocol_version=1",
    `preshared_key=${toHex(privateKey(9))}`,
    `preshared_key=${"0".repeat(64)}`,
    "endpoint=192.0.2.1:51821",
    "endpoint=[2001:db8::1]:7",
    "persistent_keepalive_interval=25",
    "persistent_keepalive_interval=0",
  ),
);
const wrongLine = fc.constantFrom(
  "remove=false",
  "allowed_ip=10.0.0.0",
  "endpoint=x",
  "rx_bytes=1",
  "nothing",
  "preshared_key=00",
  "protocol_version=2",
  "persistent_keepalive_interval=65536",
);
// As wg(8) does, these come first: wireguard-go acts line by line, where the kernel reads a peer whole before it acts.
const FIRST = ["update_only=true", "remove=true", "replace_allowed_ips=true"];
const peer = fc.tuple(peerKey, fc.array(peerLine, { maxLength: 6 })).map(([key, lines]) => {
  return [key, ...FIRST.filter((line) => lines.includes(line)), ...lines.filter((line) => !FIRST.includes(line))];
});
const deviceLine = fc.constantFrom(
  "replace_peers=true",
  "fwmark=7",
  "fwmark=0",
  `private_key=${toHex(privateKey(0x41))}`, // some peer's own
  `private_key=${toHex(privateKey(0x40))}`,
  `private_key=${"0".repeat(64)}`,
);

const deviceLines = fc.uniqueArray(deviceLine, { maxLength: 3, selector: (line) => line.split("=")[0] });

describe.runIf(needs("netns", "tun", "wg", "wireguard-go"))("beside wireguard-go", () => {
  test("any sets leave the same settings, any wrong line the same errno", async () => {
    await using lab = new Lab();
    const namespace = lab.namespace("a");
    const name = await startWireguardGo(namespace, { config: "[Interface]\nListenPort = 51820\n", addresses: [] });
    const theirs = join(UAPI_FOLDER, `${name}.sock`);
    const { backend } = await serve();
    const both = (text: string): Promise<string[]> => Promise.all([ask(server!.path, text), ask(theirs, text)]);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(deviceLines, fc.array(peer, { maxLength: 4 })), { maxLength: 4 }),
        fc.option(wrongLine, { nil: undefined }),
        async (sets, wrong) => {
          await both(`set=1\nprivate_key=${"0".repeat(64)}\nfwmark=0\nreplace_peers=true\n\n`);
          for (const [device, peers] of sets) {
            const text = ["set=1", ...device, ...peers.flat(), "", ""].join("\n");
            expect(await both(text)).toEqual(["errno=0\n\n", "errno=0\n\n"]);
            const [ours, stock] = await both("get=1\n\n");
            expect(settings(ours!)).toEqual(settings(stock!));
          }
          if (wrong === undefined) return;
          const before = backend.config;
          const [ours, stock] = await both(`set=1\nfwmark=9\npublic_key=${toHex(publicKey(0x41))}\n${wrong}\n\n`);
          expect(ours).toBe(stock);
          expect(backend.config).toBe(before);
        },
      ),
      { numRuns: 100 },
    );
  });
});
