// Texts that people write: policy documents, destinations, selectors, WireGuard configurations. What is refused says
// where, what and how to mend it; what is accepted has one canonical text.
import { WirebadgeError } from "../../../src/base/errors.ts";
import { POLICY_ISSUES_MAX, POLICY_MAX_BYTES, WG_CONFIG_MAX_BYTES } from "../../../src/base/limits.ts";
import type { SeededRandom } from "../../../src/base/random.ts";
import { parseWgConfig } from "../../../src/peer/wg-config.ts";
import {
  formatDestination,
  formatRouteTarget,
  formatTraffic,
  intersectTraffic,
  parseDestination,
  parseHostPattern,
  parseRouteTarget,
  parseServicePlace,
  parseTraffic,
  trafficCovers,
} from "../../../src/policy/destination.ts";
import { canonicalPolicy, parsePolicy } from "../../../src/policy/document.ts";
import { formatSelector, type Parsed, parseIdentity, parseSelector } from "../../../src/policy/selector.ts";
import { mutateJson, mutateText } from "../mutate.ts";
import { bytesOf, type FuzzTarget, must, textOf } from "../target.ts";

// --- Destinations and selectors -----

function refusedOr<T>(parsed: Parsed<T>): parsed is { readonly ok: true; readonly value: T } {
  if (parsed.ok) return true;
  const { code, message, hint } = parsed.refusal;
  must(code.length > 0 && message.length > 0 && hint.length > 0, "a refusal that doesn't say what or how");
  must(
    message.length < 1_000 && hint.length < 1_000 && !message.includes("\n") && !hint.includes("\n"),
    "an odd refusal",
  );
  return false;
}

function runDestination(text: string): string {
  const outcomes: string[] = [];
  for (const use of ["grant", "never"] as const) {
    const parsed = parseDestination(text, use);
    if (!refusedOr(parsed)) continue;
    const canonical = formatDestination(parsed.value);
    const again = parseDestination(canonical, use);
    must(
      again.ok && JSON.stringify(again.value) === JSON.stringify(parsed.value),
      () => `${canonical} is something else`,
    );
    outcomes.push(`${use} ${parsed.value.target.type}`);
  }
  const route = parseRouteTarget(text);
  if (refusedOr(route)) {
    const again = parseRouteTarget(formatRouteTarget(route.value));
    must(again.ok && JSON.stringify(again.value) === JSON.stringify(route.value), "another route");
    outcomes.push("route");
  }
  const place = parseServicePlace(text);
  if (refusedOr(place)) {
    const again = parseServicePlace(`${place.value.host} ${formatTraffic(place.value.traffic)}`);
    must(again.ok && JSON.stringify(again.value) === JSON.stringify(place.value), "another place");
    outcomes.push("place");
  }
  const traffic = parseTraffic(text.slice(text.indexOf(" ") + 1));
  if (refusedOr(traffic)) {
    const again = parseTraffic(formatTraffic(traffic.value));
    must(again.ok && JSON.stringify(again.value) === JSON.stringify(traffic.value), "other traffic");
    must(trafficCovers(traffic.value, traffic.value), "it doesn't cover itself");
    const both = intersectTraffic(traffic.value, traffic.value);
    must(JSON.stringify(both) === JSON.stringify(traffic.value), "with itself it is something else");
    outcomes.push("traffic");
  }
  const host = parseHostPattern(text);
  if (refusedOr(host)) {
    const again = parseHostPattern(host.value);
    must(again.ok && again.value === host.value, "another pattern");
  }
  return outcomes.length === 0 ? "refused" : outcomes.join();
}

function runSelector(text: string): string {
  const identity = parseIdentity(text);
  const parsed = parseSelector(text);
  if (refusedOr(identity)) must(parsed.ok && parsed.value.type === "identity", "an identity that is no selector");
  if (!refusedOr(parsed)) return "refused";
  const again = parseSelector(formatSelector(parsed.value));
  must(again.ok && JSON.stringify(again.value) === JSON.stringify(parsed.value), "another selector");
  return parsed.value.type;
}

// --- Policy documents -----

const POLICY = {
  groups: { platform: ["user:ana@example.com", "agent:coder"] },
  services: { db: { at: "10.20.0.5 tcp:5432", via: ["node:gw-1"], tags: ["prod"], discoverable: true } },
  routes: { "10.20.0.0/16": { via: ["node:gw-1"] }, "host:*.internal": { via: ["tag:gateways"] } },
  grants: [
    { id: "g1", from: "agent:coder", to: "service:db" },
    {
      from: ["group:platform", "kind:agent"],
      to: ["10.20.0.0/16 tcp:80,443", "node:gw-1 icmp"],
      until: "2027-01-01T00:00:00Z",
    },
  ],
  never: [{ from: "kind:agent", to: "169.254.0.0/16" }],
  leases: { agent: "5m", node: "12h" },
  tests: [{ from: "agent:coder", to: "service:db", expect: "allow" }],
};
const JSONC = `// what agents may\n${JSON.stringify(POLICY, undefined, 2)
  .replace('"grants": [', '/* grants */ "grants": [')
  .replace(/\]\n\}$/, "],\n}")}`;

function runPolicy(text: string): string {
  const result = parsePolicy(text, 1);
  if (result.ok) {
    const canonical = canonicalPolicy(result.policy);
    const again = parsePolicy(canonical, 1);
    must(again.ok, () => `the canonical policy is refused: ${again.ok || JSON.stringify(again.issues[0])}`);
    must(canonicalPolicy(again.policy) === canonical, "two canonical policies");
    return "policy";
  }
  must(result.issues.length > 0 && result.issues.length <= POLICY_ISSUES_MAX, "how many issues?");
  const lines = text.split("\n");
  for (const { code, message, hint, line, column } of result.issues) {
    must(code.length > 0 && message.length > 0 && hint.length > 0, () => `${code} doesn't say what or how`);
    must(message.length < 1_000 && hint.length < 1_000, () => `${code} says too much`);
    const length = lines[line - 1]?.length ?? -1;
    must(column >= 1 && column <= length + 1, () => `${code} is at ${line}:${column}, which is nowhere`);
  }
  return result.issues[0]!.code;
}

function randomPolicyText(random: SeededRandom): Uint8Array {
  let value: unknown = POLICY;
  for (let changes = 1 + random.below(3); changes > 0; changes--) value = mutateJson(value, random);
  return bytesOf(JSON.stringify(value, undefined, random.below(2)) ?? "");
}

const names = (count: number, of: (i: number) => readonly [string, unknown]): Record<string, unknown> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => of(i)));
const filled = (piece: string, bytes = POLICY_MAX_BYTES): string => piece.repeat(Math.floor(bytes / piece.length));

/** As large as a policy may be, with as many mistakes, names or grants as it holds. */
function longPolicies(): Uint8Array[] {
  const wide = (document: unknown): string => JSON.stringify(document);
  return [
    wide({ groups: names(60_000, (i) => [`g${i}`, 1]) }),
    wide(names(80_000, (i) => [`k${i}`, 1])),
    wide({ groups: names(9_000, (i) => [`g${i}`, [`agent:a${i}`]]) }),
    wide({ services: names(9_000, (i) => [`s${i}`, { at: `10.${i >> 8}.${i & 255}.1 tcp:5432`, via: ["node:a"] }]) }),
    wide({ services: names(9_000, (i) => [`s${i}`, { at: "10.0.0.1 tcp:5432", via: ["node:a"] }]) }),
    wide({ services: names(9_000, (i) => [`s${i}`, { at: `10.0.0.1 tcp:${i + 1}`, via: ["node:a"] }]) }),
    wide({ services: names(9_000, (i) => [`s${i}`, { at: "10.0.0.1 tcp:1", via: [`node:a${i}`] }]) }),
    wide({
      services: names(60, (i) => [
        `s${i}`,
        { at: "a.b tcp:1", via: Object.keys(names(990, (j) => [`node:a${i}-${j}`, 0])) },
      ]),
    }),
    wide({
      services: names(4_000, (i) => [`service-${i}`, { at: `10.0.0.1 tcp:${i + 1}`, via: ["node:a"] }]),
      grants: Array.from({ length: 9_000 }, (_, i) => ({ from: "group:x", to: `service:servica-${i}` })),
    }),
    wide({ routes: names(9_000, (i) => [`10.${i >> 8}.${i & 255}.0/24`, { via: ["node:a"] }]) }),
    wide({ routes: names(9_000, (i) => [`host:h${i}.a`, { via: ["node:a"] }]) }),
    wide({ grants: Array.from({ length: 9_000 }, () => ({ from: "agent:a", to: "node:b any" })) }),
    wide({ grants: Array.from({ length: 9_000 }, () => ({ id: "same", from: "agent:a", to: "node:b any" })) }),
    wide({ grants: Array.from({ length: 9_000 }, () => ({ from: "agentx:a", to: "nothing:at all" })) }),
    wide({ grants: [{ from: new Array(900).fill("tag:a"), to: new Array(900).fill("service:missing") }] }),
    wide({ grants: names(60_000, (i) => [`${i}`, i]) }),
    wide({ grants: [{ from: "agent:a", to: `10.0.0.0/8 tcp:${new Array(90_000).fill("1").join()}` }] }),
    wide({ tests: Array.from({ length: 9_000 }, () => ({ from: "agent:a", to: "node:b any", expect: "maybe" })) }),
    filled("["),
    filled("[1,"),
    filled('{"a":'),
    filled("/*"),
    filled("//\n"),
    filled('"'),
    filled("\\"),
    filled('"a":1,'),
    `{${filled('"a":1,', POLICY_MAX_BYTES - 10)}"b":1}`,
    `[${filled("{},", POLICY_MAX_BYTES - 10)}{}]`,
    `{"grants":[${filled("{},", POLICY_MAX_BYTES - 20)}{}]}`,
    filled("\n"),
  ].map((text) => bytesOf(text.slice(0, POLICY_MAX_BYTES)));
}

// --- WireGuard configurations -----

const WG_KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const WG_KEY_2 = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const WG = `[Interface]
PrivateKey = ${WG_KEY}
Address = 10.0.0.2/32, fd00::2/128
ListenPort = 51820
DNS = 10.0.0.1, corp.lan
MTU = 1420
Table = auto
FwMark = 0xca6c

[Peer] # the gateway
PublicKey = ${WG_KEY_2}
PresharedKey = ${WG_KEY}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
`;

/** What `parseWgConfig` gives or its refusal, as text. */
function readWg(text: string): { readonly config: string; readonly code: string } {
  try {
    const config = parseWgConfig("wg.conf", text, { ignoreHooks: true });
    for (const peer of config.peers) must(peer.publicKey.length === 32, "an odd key");
    must(config.ownAddresses.length === config.addresses.length && config.privateKey.length === 32, "odd parts");
    return { config: JSON.stringify(config), code: `config ${Math.min(config.peers.length, 3)}` };
  } catch (error) {
    if (!(error instanceof WirebadgeError)) throw error;
    must(error.code === "CONFIG_INVALID" && error.hint !== undefined, "an error without a hint");
    const isWhole = /too large/.test(error.message);
    must(isWhole || /^wg\.conf:\d+: ./.test(error.message), () => `no line in ${error.message}`);
    must(!error.message.includes(WG_KEY) && !error.message.includes(WG_KEY_2), "a key stands in an error");
    return {
      config: error.message,
      code: error.message
        .replace(/^.*?: /, "")
        .replace(/[“”].*[“”]|\d+/g, "")
        .slice(0, 40),
    };
  }
}

function runWg(text: string): string {
  const { config, code } = readWg(text);
  const spaced = text.replaceAll("=", " = ").replaceAll("\n", " # a comment\r\n");
  must(readWg(spaced).config === config, () => "spaces and comments change the meaning");
  return code;
}

const wgLines = (line: string): string => {
  const count = Math.floor((WG_CONFIG_MAX_BYTES - WG.length) / (line.length + 1) / 4);
  return `${WG}${`${line}\n`.repeat(count)}`;
};

const text = (
  name: string,
  run: (text: string) => string,
  of: Partial<FuzzTarget> & Pick<FuzzTarget, "seeds" | "reaches" | "share">,
): FuzzTarget => ({
  name,
  maxBytes: 8_192,
  run: (input) => run(textOf(input)),
  ...of,
});

const DESTINATIONS = [
  "service:staging-db",
  "10.20.0.0/16 tcp:5432,8000-8099",
  "host:*.staging.internal tcp:443",
  "node:gw-1 icmp",
].concat([
  "[fd00::1]/64 udp:53",
  "tag:prod",
  "gw-1",
  "host:db.internal udp:any",
  "10.20.0.5 tcp:5432",
  "64:ff9b::/96 any",
  "service:*",
]);
const SELECTORS = ["agent:coder", "user:ana@example.com", "kind:agent", "agent:*", "group:platform", "tag:prod"].concat(
  ["sponsor:user:ana@example.com", "session:s_0123456789abcdef", "token:t_0123456789abcdef", "node:gw-1"],
);

export const TEXT_TARGETS: readonly FuzzTarget[] = [
  text("destination", runDestination, {
    share: 20,
    maxBytes: 600,
    seeds: DESTINATIONS.map(bytesOf),
    make: (random) => bytesOf(mutateText(random.pick(DESTINATIONS), random)),
    words: ["service:", "host:", "*.", " tcp:", " any", "::", "/0", "-", ",", "65535", "node:*"],
    long: () =>
      [`10.0.0.0/8 tcp:${"1,".repeat(50_000)}1`, `host:${"a.".repeat(50_000)}a`, `${"a-".repeat(50_000)} any`].map(
        bytesOf,
      ),
    reaches: ["refused", "grant service,never service", "grant name,never name", "never prefix,route"],
  }),
  text("selector", runSelector, {
    share: 20,
    maxBytes: 600,
    seeds: SELECTORS.map(bytesOf),
    words: ["user:", "agent:", "@", "..", ":*", "sponsor:user:"],
    long: () =>
      [
        `user:${"a@".repeat(50_000)}`,
        `user:${"a.".repeat(50_000)}@b`,
        `agent:${"-".repeat(90_000)}`,
        `${"x".repeat(90_000)}:a`,
      ].map(bytesOf),
    reaches: ["refused", "identity", "kind", "group", "tag", "sponsor", "session", "token"],
  }),
  text("policy-document", runPolicy, {
    share: 4,
    most: 40_000,
    slowMs: 300,
    seeds: [JSONC, "{}", JSON.stringify(POLICY), '{"grants":[],"grants":[]}', '{"never":{},"__proto__":1}']
      .concat(
        '{"grants":[{"from":"agent:a","to":"10.0.0.1/8 any"}]}',
        '{"grants":[{"from":"a","to":"node:b any"}]}',
        '{"services":{"a":{}}}',
        '{"grant":[]}',
        '{"grants":{}}',
      )
      .map(bytesOf),
    make: randomPolicyText,
    words: ['"grants"', '"never"', "//", "/*", "*/", ",", "null", '"__proto__"', "\\u", "[", "{"],
    long: longPolicies,
    reaches: [
      "policy",
      "SYNTAX",
      "UNKNOWN_KEY",
      "WRONG_TYPE",
      "MISSING_KEY",
      "BAD_SELECTOR",
      "BAD_DESTINATION",
      "DUPLICATE_KEY",
    ],
  }),
  text("wg-config", runWg, {
    share: 10,
    most: 60_000,
    seeds: [bytesOf(WG), bytesOf(`[Interface]\nPrivateKey=${WG_KEY}\nAddress=10.0.0.2\nPostUp=rm -rf /\n`)],
    words: [
      "[Peer]\n",
      "[Interface]\n",
      "AllowedIPs=",
      "Endpoint=[",
      "off",
      "=",
      "#",
      "\r",
      "\u2028",
      "\uFEFF",
      "10.0.0.0/8,",
    ],
    long: () =>
      [
        wgLines("AllowedIPs = 10.0.0.0/8"),
        wgLines("Address = 10.0.0.1"),
        wgLines("DNS = 10.0.0.1"),
        wgLines("[Peer]"),
        wgLines(`[Peer]\nPublicKey=${WG_KEY_2}`),
        wgLines("#abcdefgh"),
        `${WG}${"#".repeat(1_000_000)}\r`,
        `${WG}${" ".repeat(1_000_000)}x`,
        `${WG}AllowedIPs=${"10.0.0.0/8,".repeat(300_000)}`,
        `${WG}${"[".repeat(1_000_000)}`,
      ].map(bytesOf),
    reaches: ["config 0", "config 1", "there is a zero byte"],
  }),
];
