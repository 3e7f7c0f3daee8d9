// Random policy documents: few names and few ports, so that grants, nevers and traffic meet often.
import type { SeededRandom } from "../base/random.ts";
import { parsePolicyValue } from "../policy/document.ts";
import type { Policy } from "../policy/policy.ts";
import type { PolicyDocument } from "../policy/schema.ts";

export const SIM_PORTS = [22, 53, 80, 5432] as const;
export const SIM_ROUTES = ["10.20.0.0/16", "10.20.7.0/24"] as const;
export const SIM_SERVICES = ["db", "web"] as const;
/** Addresses behind the routes and services, for traffic to aim at. */
export const SIM_BEHIND = ["10.20.7.7", "10.20.0.5", "10.30.0.5"] as const;

const FROM = [
  "agent:coder",
  "agent:auditor",
  "agent:tester",
  "user:ana@example.com",
  "node:gw-1",
  "node:gw-2",
  "kind:agent",
  "kind:node",
  "kind:user",
  "tag:red",
  "tag:blue",
  "group:platform",
  "sponsor:user:ana@example.com",
] as const;
/** Who is meant by a wide rule. */
const MANY = ["kind:agent", "kind:node", "kind:user", "tag:red", "tag:blue", "group:platform"] as const;
const TRAFFIC = ["any", "icmp", "tcp:any", "udp:any"] as const;

type Grant = NonNullable<PolicyDocument["grants"]>[number];

function drawSome<T>(random: SeededRandom, items: readonly T[]): T[] {
  const count = 1 + random.below(2);
  return Array.from({ length: count }, () => random.pick(items));
}

function drawTraffic(random: SeededRandom): string {
  if (random.chance(0.3)) return random.pick(TRAFFIC);
  const protocol = random.pick(["tcp", "udp"]);
  if (random.chance(0.2)) return `${protocol}:50-500`;
  const ports = new Set(drawSome(random, SIM_PORTS));
  return `${protocol}:${[...ports].join(",")}`;
}

function drawTo(random: SeededRandom): string {
  switch (random.below(8)) {
    case 0:
      return `service:${random.pick(["db", "web", "*"])}`;
    case 1:
      return `${random.pick(["10.20.0.0/16", "10.20.7.0/24", "10.20.7.7", "0.0.0.0/0"])} ${drawTraffic(random)}`;
    case 2:
      return `10.99.0.0/16 ${drawTraffic(random)}`;
    default:
      return `${random.pick(FROM)} ${drawTraffic(random)}`;
  }
}

function drawUntil(random: SeededRandom, nowMs: number): { readonly until?: string } {
  return random.chance(0.35) ? { until: new Date(nowMs + 5_000 + random.below(60_000)).toISOString() } : {};
}

function drawWide(random: SeededRandom): string[] {
  const to = ["kind:node any", "kind:agent any", "kind:user any", "service:*", "0.0.0.0/0 any"];
  return to.filter(() => random.chance(0.7)).concat("tag:red udp:any");
}

/** `nowMs` by the coordinator's clock: every `until` ends soon after it. */
export function drawDocument(random: SeededRandom, nowMs: number): PolicyDocument {
  const grants: Grant[] = Array.from({ length: 3 + random.below(8) }, (_, index) => ({
    id: `g${index}`,
    from: drawSome(random, FROM),
    to: [...new Set([drawTo(random), ...(random.chance(0.3) ? [drawTo(random)] : [])])],
    ...drawUntil(random, nowMs),
  }));
  // Most worlds have somebody who may do much: else nearly all traffic ends at its source.
  if (random.chance(0.85)) {
    grants.push({ id: "wide", from: drawSome(random, MANY), to: drawWide(random), ...drawUntil(random, nowMs) });
  }
  const never = Array.from({ length: random.below(5) }, (_, index) => ({
    id: `n${index}`,
    from: drawSome(random, MANY),
    to: random.chance(0.15)
      ? random.pick(FROM)
      : random.chance(0.5)
        ? `${random.pick(MANY)} ${drawTraffic(random)}`
        : drawTo(random),
  }));
  return {
    groups: { platform: [random.pick(FROM.slice(0, 6)), random.pick(["tag:red", "agent:tester"])] },
    services: {
      db: { at: "10.30.0.5 tcp:5432", via: ["node:gw-1", "node:gw-2"] },
      web: { at: "10.20.7.7 tcp:22,80", via: [random.pick(["node:gw-1", "node:*", "tag:red"])] },
    },
    routes: {
      "10.20.0.0/16": { via: [random.pick(["node:gw-1", "node:*"])] },
      "10.20.7.0/24": { via: ["node:gw-2"] },
    },
    grants,
    never,
    leases: { agent: random.pick(["10s", "30s", "2m"]), node: random.pick(["20s", "60s"]), user: "30s" },
  };
}

export function policyOf(document: PolicyDocument, version: number): Policy {
  const parsed = parsePolicyValue(document, version);
  if (parsed.ok) return parsed.policy;
  throw new Error(`a drawn policy is refused: ${JSON.stringify(parsed.issues)}`);
}
