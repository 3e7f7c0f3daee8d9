import { expect, test } from "vitest";
import { formatAddress, formatPrefix } from "../../src/base/address.ts";
import { fromBase64, toBase64 } from "../../src/base/bytes.ts";
import { WirebadgeError } from "../../src/base/errors.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { parseWgConfig, type WgConfig, type WgConfigOptions } from "../../src/peer/wg-config.ts";

const PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PEER_A = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const PEER_B = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const PSK = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";
const ZERO = `${"A".repeat(43)}=`;
const LOW_ORDER = "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA="; // RFC 7748 §6.1: of order 8

function parse(text: string, options?: WgConfigOptions): WgConfig {
  return parseWgConfig("t.conf", text, options);
}

function failure(text: string, options?: WgConfigOptions): WirebadgeError {
  try {
    parse(text, options);
  } catch (error) {
    if (error instanceof WirebadgeError) return error;
    throw error;
  }
  throw new Error("it was taken");
}

const GOOD = `# home
[Interface]
PrivateKey = ${PRIVATE}
ListenPort = 51820 # comment
Address = 10.192.122.1/24, fd00::1/64
Address = 10.10.0.1
DNS = 10.0.0.53, fd00::53, corp.example
MTU = 1380
Table = off
FwMark = 0xca6c

[Peer]
PublicKey = ${PEER_A}
PresharedKey = ${PSK}
AllowedIPs = 10.192.122.3/32, 10.192.124.1/24
AllowedIPs = fd00:2::/48
Endpoint = vpn.Example.com:51821
PersistentKeepalive = 25

[peer]
publickey=${PEER_B}
ALLOWEDIPS = 0.0.0.0/0 , ::/0
Endpoint = [2001:db8::1]:51820
`;

test("every key of wg(8) and wg-quick(8) is read; lists and repeated lines add up", () => {
  const config = parse(GOOD);
  expect(toBase64(config.privateKey)).toBe(PRIVATE);
  expect(config).toMatchObject({ listenPort: 51820, mtuBytes: 1380, table: "off", fwMark: 0xca6c, ignored: [] });
  expect(config.addresses.map(formatPrefix)).toEqual(["10.192.122.0/24", "fd00::/64", "10.10.0.1/32"]);
  expect(config.ownAddresses.map(formatAddress)).toEqual(["10.192.122.1", "fd00::1", "10.10.0.1"]);
  expect(config.interfaceAddresses.map(formatPrefix)).toEqual(["10.192.122.1/24", "fd00::1/64", "10.10.0.1/32"]);
  expect(config.dnsServers.map(formatAddress)).toEqual(["10.0.0.53", "fd00::53"]);
  expect(config.searchDomains).toEqual(["corp.example"]);
  const [a, b] = config.peers;
  expect(toBase64(a!.publicKey)).toBe(PEER_A);
  expect(toBase64(a!.presharedKey!)).toBe(PSK);
  expect(a!.allowedIps.map(formatPrefix)).toEqual(["10.192.122.3/32", "10.192.124.0/24", "fd00:2::/48"]);
  expect(a).toMatchObject({ endpoint: { host: "vpn.example.com", port: 51821 }, persistentKeepaliveSeconds: 25 });
  expect(b).toMatchObject({ endpoint: { host: "2001:db8::1", port: 51820 }, persistentKeepaliveSeconds: 0, line: 20 });
  expect(b!.allowedIps.map(formatPrefix)).toEqual(["0.0.0.0/0", "::/0"]);
  expect(b!.presharedKey).toBeUndefined();
});

test("Windows line ends and a byte order mark are read past", () => {
  expect(parse(`\uFEFF${GOOD.replaceAll("\n", "\r\n")}`)).toEqual(parse(GOOD));
});

const HEAD = `[Interface]\nPrivateKey=${PRIVATE}\nAddress=10.0.0.2\n`;

test("of two peers with one prefix the last has it, whatever host bits it was written with", () => {
  const config = parse(
    `${HEAD}[Peer]\nPublicKey=${PEER_A}\nAllowedIPs=10.0.0.0/24,10.1.0.0/24,10.1.0.9/24\n` +
      `[Peer]\nPublicKey=${PEER_B}\nAllowedIPs=10.0.0.7/24`,
  );
  expect(config.peers.map((peer) => peer.allowedIps.map(formatPrefix))).toEqual([["10.1.0.0/24"], ["10.0.0.0/24"]]);
});

test("a public key that stands twice is one peer: the later section replaces what it sets, a zero key is none", () => {
  const config = parse(
    `${HEAD}[Peer]\nPublicKey=${PEER_A}\nPresharedKey=${PSK}\nAllowedIPs=10.0.0.0/24\nEndpoint=192.0.2.1:1\n` +
      `[Peer]\nPublicKey=${PEER_A}\nPresharedKey=${ZERO}\nAllowedIPs=10.9.0.0/24\nPersistentKeepalive=off\n`,
  );
  expect(config.peers).toHaveLength(1);
  expect(config.peers[0]).toMatchObject({ endpoint: { host: "192.0.2.1", port: 1 }, presharedKey: undefined });
  expect(config.peers[0]!.allowedIps.map(formatPrefix)).toEqual(["10.9.0.0/24"]);
});

test("a peer with this end's own key is passed over, and takes no prefix from another", () => {
  const own = toBase64(new PortableCrypto().publicKey(fromBase64(PRIVATE)!));
  const config = parse(
    `${HEAD}[Peer]\nPublicKey=${PEER_A}\nAllowedIPs=10.0.0.0/24\n[Peer]\nPublicKey=${own}\nAllowedIPs=10.0.0.0/24\n`,
  );
  expect(config.peers.map((peer) => toBase64(peer.publicKey))).toEqual([PEER_A]);
  expect(config.peers[0]!.allowedIps.map(formatPrefix)).toEqual(["10.0.0.0/24"]);
  expect(config.ownPeerLine).toBe(7);
  expect(parse(GOOD).ownPeerLine).toBeUndefined();
});

test("an empty AllowedIPs, FwMark off and ListenPort 0 are what they are", () => {
  const config = parse(`${HEAD}FwMark=off\nListenPort=0\n[Peer]\nPublicKey=${PEER_A}\nAllowedIPs=\n`);
  expect(config).toMatchObject({ fwMark: 0, listenPort: 0 });
  expect(config.peers[0]!.allowedIps).toEqual([]);
});

test.each([
  ["", { fwMark: 0, table: "auto" }],
  ["FwMark = off\nTable = auto", { fwMark: 0, table: "auto" }],
  ["FwMark = 51820\nTable = off", { fwMark: 51820, table: "off" }],
  ["FwMark = 0xCA6C\nTable = 77", { fwMark: 51820, table: 77 }],
  ["FwMark = 0xffffffff\nTable = 0xffffffff", { fwMark: 0xffffffff, table: 0xffffffff }],
])("FwMark and Table are given as they are written: %j", (lines, wanted) => {
  expect(parse(`${HEAD}${lines}`)).toMatchObject(wanted);
});

const PEER = `${HEAD}[Peer]\nPublicKey=${PEER_A}\n`; // a key of it stands in line 6

test.each([
  ["", 1, "no [Interface]"],
  ["ListenPort=1\n[Interface]", 1, "before the first section"],
  [`[Interface]\nPrivateKey=${PRIVATE}`, 1, "no Address"],
  ["[Interface]\nAddress=10.0.0.1", 1, "no PrivateKey"],
  [`${HEAD}[Interface]`, 4, "stands twice"],
  [`${HEAD}[Peers]`, 4, "no section"],
  [`${HEAD}[Peer]\nAllowedIPs=10.0.0.0/8`, 4, "no PublicKey"],
  [`${HEAD}Adress=10.0.0.1`, 4, "“Adress” is no key"],
  [`${HEAD}PublicKey=${PEER_A}`, 4, "wrong section"],
  [`${PEER}MTU=1400`, 6, "wrong section"],
  [`${PEER}PostUp=true`, 6, "no key"],
  [`${HEAD}ListenPort=65536`, 4, "ListenPort"],
  [`${HEAD}ListenPort=http`, 4, "ListenPort"],
  [`${HEAD}MTU=1279`, 4, "MTU"],
  [`${HEAD}FwMark=0x100000000`, 4, "FwMark"],
  [`${HEAD}Table=main`, 4, "Table"],
  [`${HEAD}Address=10.0.0.1/33`, 4, "Address"],
  [`${HEAD}Address=10.0.0.1,,10.0.0.2`, 4, "empty item"],
  [`${HEAD}DNS=10.0.0.999`, 4, "DNS"],
  [`${HEAD}ListenPort`, 4, "not KEY = VALUE"],
  [`${HEAD}a\0b=1`, 4, "zero byte"],
  [`${PEER}AllowedIPs=10.0.0.0/8,x`, 6, "AllowedIPs"],
  [`${PEER}Endpoint=192.0.2.1`, 6, "HOST:PORT"],
  [`${PEER}Endpoint=192.0.2.1:0`, 6, "HOST:PORT"],
  [`${PEER}Endpoint=2001:db8::1:51820`, 6, "HOST:PORT"],
  [`${PEER}Endpoint=[fe80::1%eth0]:51820`, 6, "zone"],
  [`${PEER}Endpoint=[192.0.2.1]:51820`, 6, "brackets"],
  [`${PEER}Endpoint=a_-:51820`, 6, "neither"],
  [`${PEER}PersistentKeepalive=65536`, 6, "PersistentKeepalive"],
  [`${PEER}PresharedKey=${PSK.slice(1)}`, 6, "PresharedKey is not a key"],
  [`[Interface]\nPrivateKey=${ZERO}`, 2, "PrivateKey is all zeros"],
  [`${HEAD}[Peer]\nPublicKey=${ZERO}`, 5, "PublicKey is all zeros"],
  [`${HEAD}[Peer]\nPublicKey=${LOW_ORDER}`, 5, "low order"],
])("a mistake is named with its line and a way to mend it (%#)", (text, line, what) => {
  const error = failure(text);
  expect(error.code).toBe("CONFIG_INVALID");
  expect(error.message).toMatch(new RegExp(`^t\\.conf:${line}: `));
  expect(error.message).toContain(what);
  expect(error.hint).toBeTruthy();
});

test.each(["PreUp", "postup", "PREDOWN", "PostDown", "SaveConfig"])(
  "%s is refused with its line, or passed over",
  (key) => {
    const text = `${HEAD}${key} = iptables -A FORWARD -i %i; echo #x`;
    const error = failure(text);
    expect(error.message).toMatch(/^t\.conf:4: .*never run/);
    expect(error.hint).toContain("--ignore-hooks");
    expect(parse(text, { ignoreHooks: true }).ignored).toEqual([{ line: 4, key: expect.any(String) }]);
  },
);

test("no error quotes a key, however the line with it is broken", () => {
  const canary = PRIVATE.slice(0, 12);
  for (const line of [
    `PrivateKey ${PRIVATE}`,
    PRIVATE,
    `Private Key = ${PRIVATE}`,
    `${PRIVATE} = PrivateKey`,
    `PrivateKey = ${PRIVATE}x`,
    `PrivateKey: ${PRIVATE}`,
    `[${PRIVATE}]`,
    `ListenPort = ${PRIVATE}`,
    `DNS = ${PRIVATE}`,
    `Address = ${PRIVATE}`,
    `Table = ${PRIVATE}`,
    `${canary}${canary.slice(0, 4)}`,
  ]) {
    const error = failure(`[Interface]\n${line}\n`);
    expect(`${error.message} ${error.hint} ${String(error.cause)}`, line).not.toContain(canary.slice(0, 8));
  }
});

test("any text at all is read or refused with a line, never anything else", () => {
  const random = new SeededRandom(3);
  const pieces = GOOD.split(/(?<=[\n=\s,])/).concat(["\0", "[", "]", "=", "#", ",", "x", "\r", "١"]);
  for (let i = 0; i < 1_500; i++) {
    let text = random.chance(0.5) ? HEAD : "";
    for (let n = random.below(30); n > 0; n--) text += random.pick(pieces);
    try {
      parse(text);
    } catch (error) {
      expect(error).toBeInstanceOf(WirebadgeError);
      expect((error as WirebadgeError).message).toMatch(/^t\.conf:\d+: /);
    }
  }
});

/** Thread time: other work on the machine doesn't count. */
function cpuMs(run: () => void): number {
  const before = process.threadCpuUsage();
  run();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1_000;
}

test("40,000 lines of AllowedIPs take no more than their share of time", () => {
  const text = `${GOOD}${"AllowedIPs = 10.0.0.0/8\n".repeat(40_000)}`;
  expect(cpuMs(() => parse(text))).toBeLessThan(1_000);
});

test("a comment may hold a carriage return, and a line of nothing but # is none of work", () => {
  expect(parse(GOOD.replace("# home", "# home\rof mine"))).toEqual(parse(GOOD));
  expect(cpuMs(() => parse(`${GOOD}${"#".repeat(200_000)}\rx\n`))).toBeLessThan(500);
});
