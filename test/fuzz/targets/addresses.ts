// Texts and bytes of base/: addresses (held against Node's own reading), prefixes, endpoints, base32, base64, hex; and
// host names.
import { isIPv4, isIPv6 } from "node:net";
import {
  addressFromBytes,
  addressTo16,
  equalAddress,
  equalEndpoint,
  formatAddress,
  formatEndpoint,
  formatPrefix,
  makeAddress,
  parseAddress,
  parseEndpoint,
  parsePrefix,
  prefixContains,
} from "../../../src/base/address.ts";
import { fromBase32, toBase32 } from "../../../src/base/base32.ts";
import {
  fromBase64,
  fromBase64Url,
  fromHex,
  fromUtf8,
  toBase64,
  toBase64Url,
  toHex,
  utf8,
} from "../../../src/base/bytes.ts";
import type { SeededRandom } from "../../../src/base/random.ts";
import { longestMatch, matchesPattern, parseHostName } from "../../../src/peer/host-name.ts";
import { mutateText } from "../mutate.ts";
import { bytesOf, type FuzzTarget, must, same, textOf } from "../target.ts";

const WORDS = [
  ":",
  "::",
  ".",
  "/",
  "[",
  "]",
  "%",
  "0",
  "ffff",
  "255",
  "::ffff:",
  "1.2.3.4",
  "/128",
  "/32",
  ":65535",
  "01",
];

export function randomAddressText(random: SeededRandom): string {
  const word = (): number => random.pick([0, 0, 1, 0xffff, 0x10000, 0xffffffff, random.u32()]);
  const isV4 = random.chance(0.4);
  const address = isV4 ? makeAddress(0, 0, 0xffff, random.u32()) : makeAddress(word(), word(), word(), word());
  return formatAddress(address);
}

function checkAddress(text: string): string {
  const address = parseAddress(text);
  const isAddress = isIPv4(text) || (isIPv6(text) && !text.includes("%"));
  must((address !== undefined) === isAddress, `parsed differently from Node: ${JSON.stringify(text)}`);
  if (address === undefined) return "no address";
  const canonical = formatAddress(address);
  const again = parseAddress(canonical);
  must(again !== undefined && equalAddress(again, address), "the canonical text is another address");
  must(formatAddress(again) === canonical, "two canonical texts");
  must(equalAddress(addressFromBytes(addressTo16(address), 0, 16), address), "its bytes are another address");
  return isIPv4(canonical) ? (text.includes(":") ? "mapped" : "IPv4") : "IPv6";
}

function checkPrefix(text: string): string {
  const prefix = parsePrefix(text);
  if (prefix === undefined) return "no prefix";
  must(prefix.bits >= 0 && prefix.bits <= 128, "bits out of range");
  const canonical = formatPrefix(prefix);
  const again = parsePrefix(canonical);
  must(
    again !== undefined && again.bits === prefix.bits && equalAddress(again.address, prefix.address),
    "another prefix",
  );
  const isOddV6 = prefix.bits < 96 && isIPv4(formatAddress(prefix.address)); // ::/0 written through a mapped address
  must(isOddV6 || prefixContains(prefix, prefix.address), "a prefix without its own address");
  return `prefix ${prefix.bits % 32 === 0}`;
}

function checkEndpoint(text: string): string {
  const endpoint = parseEndpoint(text);
  if (endpoint === undefined) return "no endpoint";
  const again = parseEndpoint(formatEndpoint(endpoint));
  must(again !== undefined && equalEndpoint(again, endpoint), "the canonical text is another endpoint");
  return "endpoint";
}

function checkCoding(bytes: Uint8Array): string {
  const text = textOf(bytes);
  const pairs: readonly (readonly [string, (bytes: Uint8Array) => string, (text: string) => Uint8Array | undefined])[] =
    [
      ["base32", toBase32, fromBase32],
      ["base64", toBase64, fromBase64],
      ["base64url", toBase64Url, fromBase64Url],
      ["hex", toHex, fromHex],
    ];
  let read = "";
  for (const [name, encode, decode] of pairs) {
    const back = decode(encode(bytes));
    must(back !== undefined && same(back, bytes), `${name} does not come back`);
    const decoded = decode(text);
    if (decoded === undefined) continue;
    const spelt = encode(decoded);
    must(spelt === (name === "hex" ? text.toLowerCase() : text), `${name}: two spellings of the same bytes`);
    read += ` ${name}`;
  }
  const plain = fromUtf8(bytes);
  // A byte order mark at the beginning is no part of the text.
  if (plain !== undefined && bytes[0] !== 0xef) must(same(utf8(plain), bytes), "UTF-8 does not come back");
  return `${read}${plain === undefined ? "" : " utf8"}`;
}

function checkHostName(text: string): string {
  const name = parseHostName(text);
  if (name === undefined) return "no name";
  must(parseHostName(name) === name, "not canonical");
  must(name.length <= 253 && /^[a-z0-9_.-]+$/.test(name), "odd characters");
  must(parseAddress(name) === undefined, "an address as a name");
  must(matchesPattern("*", name) && matchesPattern(name, name), "it doesn't match itself");
  const below = `x.${name}`;
  must(matchesPattern(`*.${name}`, below) && !matchesPattern(`*.${name}`, name), "a wildcard over itself");
  must(longestMatch(name, ["*", `*.${name}`, name], (pattern) => pattern) === name, "not the longest match");
  return "name";
}

const text = (
  name: string,
  share: number,
  run: (text: string) => string,
  of: Partial<FuzzTarget> & Pick<FuzzTarget, "seeds" | "reaches">,
): FuzzTarget => ({
  name,
  share,
  maxBytes: 512,
  words: WORDS,
  run: (input) => run(textOf(input)),
  ...of,
});

export const ADDRESS_TARGETS: readonly FuzzTarget[] = [
  text("address", 60, checkAddress, {
    seeds: ["10.0.0.1", "::", "::1", "fd00::1:2", "::ffff:10.0.0.1", "1:2:3:4:5:6:7:8", "64:ff9b::192.0.2.1"].map(
      bytesOf,
    ),
    make: (random) =>
      bytesOf(random.chance(0.5) ? mutateText(randomAddressText(random), random) : randomAddressText(random)),
    reaches: ["no address", "IPv4", "IPv6", "mapped"],
  }),
  text("prefix", 40, checkPrefix, {
    seeds: ["10.0.0.0/8", "fd00::/64", "::/0", "0.0.0.0/0", "::ffff:10.0.0.0/104", "fd00::1/128"].map(bytesOf),
    make: (random) => bytesOf(`${randomAddressText(random)}/${random.below(140)}`),
    reaches: ["no prefix", "prefix true", "prefix false"],
  }),
  text("endpoint", 30, checkEndpoint, {
    seeds: ["10.0.0.1:51820", "[fd00::1]:51820", "[::ffff:10.0.0.1]:1"].map(bytesOf),
    make: (random) => {
      const address = randomAddressText(random);
      return bytesOf(`${address.includes(":") ? `[${address}]` : address}:${random.below(70_000)}`);
    },
    reaches: ["no endpoint", "endpoint"],
  }),
  {
    name: "coding",
    share: 30,
    maxBytes: 256,
    seeds: ["", "0123456789abcdef", "AAAA", "AAA=", "AQ==", "-_-_", "00000000"].map(bytesOf),
    run: checkCoding,
    reaches: [" base32 base64 base64url hex utf8", " base64 utf8", ""],
  },
  text("host-name", 40, checkHostName, {
    seeds: ["db.example.com", "DB.Internal.", "a_b-c.d", "xn--bcher-kva.example", "127.1", "0x7f.1"].map(bytesOf),
    words: [".", "-", "_", "0x7f", "127", "xn--", "A", `${"a".repeat(63)}.`],
    long: () => [bytesOf("a.".repeat(256)), bytesOf("-".repeat(512)), bytesOf(`a${"-".repeat(60)}.`.repeat(8))],
    reaches: ["no name", "name"],
  }),
];
