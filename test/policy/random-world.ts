// Random policies and worlds, from a seed, made of few names and addresses so that they meet.
import { type Address, parseAddress } from "../../src/base/address.ts";
import type { SeededRandom } from "../../src/base/random.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import type { Policy } from "../../src/policy/policy.ts";
import { NAME_DIAL_PORT, type World } from "../../src/policy/world.ts";
import { type SessionInput, worldOf } from "./named-world.ts";

const TAGS = ["pci", "edge", "blue"];
const NODES = ["node:gw-1", "node:gw-2", "node:gw-3"];
const AGENTS = ["agent:coder", "agent:auditor", "agent:tester"];
const USERS = ["user:ana@example.com", "user:bo@example.com"];
const SERVICES = ["db", "db-twin", "web", "named", "local", "odd"];
const PLACES = [
  "10.30.0.5 tcp:5432",
  "10.30.0.5 tcp:80,5432",
  "10.20.0.5 udp:53",
  "db.internal tcp:5432",
  "127.0.0.1 tcp:80",
  "64:ff9b::10.30.0.5 tcp:5432",
];
const ROUTES = ["10.30.0.0/16", "10.30.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "::/0", "64:ff9b::/96", "2002::/16"];
const HOST_ROUTES = ["host:*.internal", "host:*", "host:db.internal"];
const PROTOCOLS = ["tcp:5432", "tcp:80,5432", "tcp:any", "udp:53", "udp:any", "icmp", "any", `tcp:${NAME_DIAL_PORT}`];
const PLACES_BEHIND = [
  "10.30.0.5",
  "10.30.1.1",
  "10.20.0.5",
  "192.0.2.1",
  "64:ff9b::10.30.0.5",
  "2002:a1e:5::1",
  "::ffff:0:10.30.0.5",
  "2001:0:a1e:5::1", // Teredo
  "2001:db8::5efe:10.30.0.5", // ISATAP
  "2001:db8::1",
];
const NAMES = ["db.internal", "a.internal", "example.com"];
const UNTILS = ["1970-01-01T00:00:01Z", "1970-01-01T00:00:03Z"];

export const TIMES_MS = [0, 1_000, 2_000, 3_000];

function some<T>(random: SeededRandom, items: readonly T[], most: number): T[] {
  return Array.from({ length: random.below(most + 1) }, () => random.pick(items));
}

function selector(random: SeededRandom): string {
  return random.pick([
    ...AGENTS,
    ...NODES,
    ...USERS,
    "kind:agent",
    "kind:agent",
    "node:*",
    "kind:user",
    "group:one",
    "group:two",
    ...TAGS.map((tag) => `tag:${tag}`),
    "sponsor:user:ana@example.com",
    "token:t_0123456789abcdef",
  ]);
}

function destination(random: SeededRandom, isNever: boolean): string {
  const protocol = random.pick(PROTOCOLS);
  const bare = random.pick([
    "service:*",
    ...SERVICES.map((name) => `service:${name}`),
    ...TAGS.map((tag) => `tag:${tag}`),
  ]);
  switch (random.below(5)) {
    case 0:
    case 1:
      return bare;
    case 2:
      return isNever && random.chance(0.5) ? selector(random) : `${selector(random)} ${protocol}`;
    case 3: {
      const overlay = ["fd77:7777:7777::/64", "fd77:7777:7777::4", "fd77:7777:7777:5::/80", "10.77.0.0/24", "fd00::/8"];
      return `${random.pick([...ROUTES, ...PLACES_BEHIND, ...overlay])} ${protocol}`;
    }
    default:
      return `${random.pick([...HOST_ROUTES, ...NAMES.map((name) => `host:${name}`)])} ${protocol}`;
  }
}

function vias(random: SeededRandom): string[] {
  return random.chance(0.1) ? [] : [random.pick(NODES), random.pick([...NODES, "node:*", "tag:edge"])];
}

/** Services that overlap are left out until the document stands. */
export function randomPolicy(random: SeededRandom): Policy {
  const services = SERVICES.map((name) => [
    name,
    { at: random.pick(PLACES), via: vias(random), tags: some(random, TAGS, 2), discoverable: random.chance(0.3) },
  ]);
  const routes = [...ROUTES, ...HOST_ROUTES]
    .filter(() => random.chance(0.5))
    .map((route) => [route, { via: vias(random) }]);
  const rule = (isNever: boolean): object => ({
    from: some(
      random,
      Array.from({ length: 4 }, () => selector(random)),
      3,
    ),
    to: Array.from({ length: 1 + random.below(3) }, () => destination(random, isNever)),
  });
  const known = (to: string): boolean =>
    services.some(([name]) => to === `service:${name}`) || !/^service:[a-z]/.test(to);
  const grants = Array.from({ length: 2 + random.below(8) }, () => ({
    ...rule(false),
    ...(random.chance(0.3) ? { until: random.pick(UNTILS) } : {}),
  })) as { to: string[] }[];
  const never = Array.from({ length: random.below(4) }, () => rule(true)) as { to: string[] }[];
  for (;;) {
    const only = (one: { to: string[] }): object => ({ ...one, to: one.to.filter(known) });
    const document = {
      groups: { one: ["agent:coder", "tag:blue"], two: ["kind:user", "node:gw-1"] },
      services: Object.fromEntries(services),
      routes: Object.fromEntries(routes),
      grants: grants.map(only),
      never: never.map(only),
    };
    const result = parsePolicy(JSON.stringify(document), 1);
    if (result.ok) return result.policy;
    const clash = result.issues.find((issue) => issue.code === "SERVICE_OVERLAP");
    if (clash === undefined) throw new Error(JSON.stringify(result.issues));
    services.splice(
      services.findIndex(([name]) => clash.path.split(".")[1] === name || clash.path.includes(`"${name}"`)),
      1,
    );
  }
}

export function randomWorld(random: SeededRandom): World {
  const input = (name: string, index: number): [string, SessionInput] => [
    name,
    {
      tags: some(random, TAGS, 2),
      ...(random.chance(0.5) && name.startsWith("agent") ? { sponsor: random.pick(USERS) } : {}),
      ...(random.chance(0.3) ? { token: "t_0123456789abcdef" } : {}),
      ...(random.chance(0.5) ? { v4: `10.77.0.${index + 1}` } : {}),
      ...(random.chance(name.startsWith("node") ? 0.9 : 0.1)
        ? {
            routes: some(random, [...ROUTES, ...HOST_ROUTES, "fd77:7777:7777::/64", "no route"], 4),
            serves: [...new Set(some(random, [...SERVICES, "nothing"], 5))],
            mayRoute: random.chance(0.3)
              ? some(random, [...ROUTES, ...HOST_ROUTES, "service:db", "service:web"], 3)
              : [],
          }
        : {}),
    },
  ];
  return worldOf(Object.fromEntries([...AGENTS, ...USERS, ...NODES].map(input)));
}

/** Something that a session might ask of another: its addresses, services, what is behind it, names. */
export function randomTarget(random: SeededRandom, world: World, at: string): Address | string {
  const session = world.sessions.get(at)!;
  const own = [...session.addresses, ...session.serviceAddresses.values(), ...session.serviceAddresses.values()];
  switch (random.below(4)) {
    case 0:
    case 1:
      return random.pick(own);
    case 2:
      return parseAddress(random.pick([...PLACES_BEHIND, "127.0.0.1", "10.77.0.2", "fd77:7777:7777::2"]))!;
    default:
      return random.pick(NAMES);
  }
}
