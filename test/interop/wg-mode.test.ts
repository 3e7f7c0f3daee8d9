// `wirebadge wg`, rootless, against real wireguard-go in network namespaces: names and bytes through SOCKS5 by curl,
// both ways, byte for byte; forwards; an exposed port that the kernel's stack reaches.
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { toBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { blocks, hashOfBlob } from "./http-target.ts";
import { startWireguardGo } from "./stock-wireguard.ts";

const WIREBADGE = fileURLToPath(new URL("../../bin/wirebadge", import.meta.url));
const TARGET = fileURLToPath(new URL("http-target.ts", import.meta.url));
const BLOB_BYTES = 100_000_000;

const crypto = new PortableCrypto();
const ours = { privateKey: new Uint8Array(32).fill(0x41), inside: ["10.9.0.1/24", "fd09::1/64"] };
const theirs = { privateKey: new Uint8Array(32).fill(0x42), inside: ["10.9.0.2/24", "fd09::2/64"] };
const presharedKey = toBase64(new Uint8Array(32).fill(7));
const publicKey = (end: { privateKey: Uint8Array }): string => toBase64(crypto.publicKey(end.privateKey));

interface Pair {
  readonly a: Namespace;
  readonly b: Namespace;
  readonly folder: string;
}

async function firstLine(namespace: Namespace, command: string, args: readonly string[]): Promise<string> {
  const child = namespace.spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (output += text));
  const line = new Promise<string>((resolve) => {
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      resolve(text);
    });
  });
  const ended = once(child, "exit").then(() => {
    throw new Error(`${command} ${args[0]} ended: ${output}`);
  });
  ended.catch(() => undefined);
  return await Promise.race([line, ended]);
}

/** A runs `wirebadge wg`, B wireguard-go with a TUN and an HTTP server behind it; IPv6 outside when `outside` is 6. */
async function pair(lab: Lab, outside: 4 | 6, options: readonly string[]): Promise<Pair> {
  const [a, b] = [lab.namespace("a"), lab.namespace("b")];
  lab.link(
    { namespace: a, addresses: ["10.1.0.1/24", "fd01::1/64"] },
    { namespace: b, addresses: ["10.1.0.2/24", "fd01::2/64"] },
  );
  await startWireguardGo(b, {
    config: `[Interface]
PrivateKey = ${toBase64(theirs.privateKey)}
ListenPort = 51820
[Peer]
PublicKey = ${publicKey(ours)}
PresharedKey = ${presharedKey}
AllowedIPs = 10.9.0.1/32, fd09::1/128
`,
    addresses: theirs.inside,
  });
  const folder = await mkdtemp(join(tmpdir(), "wirebadge-wg-"));
  const file = join(folder, "a.conf");
  const endpoint = outside === 4 ? "10.1.0.2:51820" : "[fd01::2]:51820";
  const text = `# rootless
[interface]
privatekey = ${toBase64(ours.privateKey)}
Address = ${ours.inside.join(", ")}
[PEER]
PublicKey = ${publicKey(theirs)}
PresharedKey = ${presharedKey}
AllowedIPs = 10.9.0.2/32
AllowedIPs = fd09::2/128
Endpoint = ${endpoint}
`;
  await writeFile(file, text, { mode: 0o600 });
  await firstLine(b, process.execPath, [TARGET, "::", "8000"]);
  await firstLine(a, process.execPath, [WIREBADGE, "wg", file, ...options]);
  return { a, b, folder };
}

describe.runIf(needs("root", "tun", "netns", "wireguard-go", "wg", "curl"))("wg mode beside wireguard-go", () => {
  test.each([4, 6] as const)("100 MB each way through SOCKS5, byte for byte, IPv%i outside", async (outside) => {
    await using lab = new Lab();
    const { a, folder } = await pair(lab, outside, ["--socks", "127.0.0.1:1080"]);
    const curl = (...args: string[]) =>
      a.run(requireTool("curl"), ["-sS", "--fail", "--socks5-hostname", "127.0.0.1:1080", ...args], {
        timeoutMs: 120_000,
      });
    const url = outside === 4 ? "http://10.9.0.2:8000" : "http://[fd09::2]:8000";
    const blob = join(folder, "blob");
    await curl("-o", blob, `${url}/blob/${BLOB_BYTES}`);
    const down = await a.run("sha256sum", [blob]);
    expect(down.stdout.split(" ")[0]).toBe(hashOfBlob(BLOB_BYTES));
    await writeFile(blob, blocks(BLOB_BYTES));
    const up = await curl("-T", blob, `${url}/hash`);
    expect(up.stdout).toBe(hashOfBlob(BLOB_BYTES));
    await rm(folder, { recursive: true });
  });

  test("a forward carries a connection, and an exposed port is reached by the other kernel", async () => {
    await using lab = new Lab();
    const options = ["--forward", "127.0.0.1:9000=10.9.0.2:8000", "--expose", "127.0.0.1:7000=7000"];
    const { a, b, folder } = await pair(lab, 4, options);
    const forwarded = await a.run(requireTool("curl"), ["-sS", "http://127.0.0.1:9000/"]);
    expect(forwarded.stdout).toContain("10.9.0.1");
    await firstLine(a, process.execPath, [TARGET, "127.0.0.1", "7000", "exposed"]);
    for (const host of ["10.9.0.1", "[fd09::1]"]) {
      const exposed = await b.run(requireTool("curl"), ["-sS", "--max-time", "10", `http://${host}:7000/`]);
      expect(exposed.stdout).toContain("exposed 127.0.0.1");
    }
    await rm(folder, { recursive: true });
  });

  test("a closed port is refused, an unlisted address denied, a name without DNS not asked of the host", async () => {
    await using lab = new Lab();
    const { a, folder } = await pair(lab, 4, ["--socks", "127.0.0.1:1080"]);
    await delay(100);
    const replies: [string, RegExp][] = [
      ["http://10.9.0.2:81/", /\(5\)/],
      ["http://10.77.0.1/", /\(2\)/],
      ["http://localhost:8000/", /\(2\)/],
    ];
    for (const [url, reply] of replies) {
      const run = await a.run(
        requireTool("curl"),
        ["-v", "--max-time", "5", "--socks5-hostname", "127.0.0.1:1080", url],
        { check: false },
      );
      expect(run.code, url).toBe(97);
      expect(run.stderr, url).toMatch(reply);
    }
    await rm(folder, { recursive: true });
  });
});
