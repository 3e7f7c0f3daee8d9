// "May I, and why not?": for admins with everything that is known, for a peer from its own view alone. Both ask the
// packet path's code (SessionRules of the filter) about rules as they were compiled.
import type { Address } from "../base/address.ts";
import type { AddressRule, FilterProtocol, HostRule, PortRange } from "../filter/contract.ts";
import { classOfName, Opening, SessionRules } from "../filter/rules.ts";
import { hintForGrant, type PolicyCompiler } from "./compile.ts";
import {
  ANY_TRAFFIC,
  type Destination,
  formatDestination,
  formatTraffic,
  parseDestination,
  type Target,
  type Traffic,
} from "./destination.ts";
import type { Policy } from "./policy.ts";
import { type Refusal, shown } from "./selector.ts";
import { portEdges, trafficPoints } from "./traffic-points.ts";

/** `reason` is the filter's; NO_GATEWAY: granted, but nobody offers to carry it now. */
export interface Explanation {
  readonly allowed: boolean;
  readonly reason: "ALLOWED_BY_RULE" | "NO_GRANT" | "NEVER" | "NO_GATEWAY";
  readonly ruleId: string | undefined;
  readonly policyVersion: number;
  /** What would allow it, or what stands in the way; for a peer only of what it may know. */
  readonly hint: string | undefined;
}

/** What a peer knows of itself: its netmap, in the words of policy. */
export interface OwnView {
  readonly policyVersion: number;
  readonly outbound: readonly AddressRule[];
  readonly outboundHosts: readonly HostRule[];
  readonly services: readonly {
    readonly name: string;
    readonly protocol: FilterProtocol;
    readonly ports: readonly PortRange[];
    readonly gateways: readonly { readonly session: string; readonly address: Address }[];
    readonly denied?:
      | { readonly reason: "NO_GRANT" | "NEVER"; readonly ruleId?: string | undefined; readonly hint: string }
      | undefined;
  }[];
  readonly peers: readonly {
    readonly session: string;
    readonly identity: string;
    readonly addresses: readonly Address[];
  }[];
  /** Sessions that may be the other end for what is not an address of a peer: gateways. */
  readonly hostRoutes: readonly { readonly pattern: string; readonly gateways: readonly string[] }[];
}

export type Explained =
  | { readonly ok: true; readonly destination: string; readonly explanation: Explanation }
  | { readonly ok: false; readonly refusal: Refusal };

interface Try {
  readonly session: string;
  readonly to: Address | string;
}

/**
 * For `can DEST` of a peer about itself. Of what the peer may neither reach nor know of, the explanation is the same to
 * the byte, whether it exists or not. `clockMs` is the coordinator's clock.
 */
export function explainOwn(view: OwnView, text: string, clockMs: number): Explained {
  const parsed = parseDestination(text, "grant");
  if (!parsed.ok) return parsed;
  const { target, traffic } = parsed.value;
  const many = manyThings(target);
  if (many !== undefined) return { ok: false, refusal: many };
  const service = serviceNamed(view, target);
  const asked = service ?? traffic ?? ANY_TRAFFIC;
  let closed: Explanation | undefined;
  for (const { session, to } of triesOf(view, target, service)) {
    const addresses = view.outbound.filter((rule) => rule.sessions.includes(session));
    const hosts = view.outboundHosts.filter((rule) => rule.sessions.includes(session));
    const used = typeof to === "string" ? hosts : addresses;
    const judged = judge(used, new SessionRules(addresses, hosts), to, asked, clockMs);
    const hint = judged.reason === "NEVER" ? "the policy forbids it; no grant opens it" : undefined;
    const explanation = { ...judged, policyVersion: view.policyVersion, hint };
    if (judged.allowed) return explained(parsed.value, explanation);
    if (judged.reason === "NEVER") closed ??= explanation;
  }
  const denied = service?.denied;
  if (denied !== undefined) {
    const { reason, ruleId, hint } = denied;
    return explained(parsed.value, { allowed: false, reason, ruleId, policyVersion: view.policyVersion, hint });
  }
  return explained(parsed.value, closed ?? notGranted(view.policyVersion));
}

function manyThings(target: Target): Refusal | undefined {
  const isOne =
    (target.type !== "prefix" || target.prefix.bits === 128) &&
    (target.type !== "host" || !target.pattern.includes("*")) &&
    (target.type !== "service" || target.name !== "*") &&
    (target.type !== "selector" || target.selector.type === "identity");
  if (isOne) return undefined;
  const hint = "one service, address, host name or identity: service:db, 10.30.0.5 tcp:5432, node:gw-1 tcp:22";
  return { code: "BAD_DESTINATION", message: "that names many things", hint };
}

function explained(destination: Destination, explanation: Explanation): Explained {
  return { ok: true, destination: formatDestination(destination), explanation };
}

function notGranted(policyVersion: number): Explanation {
  return { allowed: false, reason: "NO_GRANT", ruleId: undefined, policyVersion, hint: undefined };
}

function serviceNamed(view: OwnView, target: Target): OwnView["services"][number] | undefined {
  if (target.type !== "service" && target.type !== "name") return undefined;
  return view.services.find((service) => service.name === target.name);
}

function triesOf(view: OwnView, target: Target, service: OwnView["services"][number] | undefined): Try[] {
  if (service !== undefined) return service.gateways.map(({ session, address }) => ({ session, to: address }));
  switch (target.type) {
    case "service":
      return [];
    case "name":
      return addressesNamed(view, `node:${target.name}`);
    case "selector":
      return target.selector.type === "identity" ? addressesNamed(view, target.selector.name) : [];
    case "prefix":
      return view.peers.map(({ session }) => ({ session, to: target.prefix.address }));
    case "host":
      return view.hostRoutes.flatMap(({ gateways }) => gateways.map((session) => ({ session, to: target.pattern })));
  }
}

function addressesNamed(view: OwnView, identity: string): Try[] {
  return view.peers
    .filter((peer) => peer.identity === identity)
    .flatMap(({ session, addresses }) => addresses.map((to) => ({ session, to })));
}

/** All that is asked for must pass. */
function judge(
  rules: readonly (AddressRule | HostRule)[],
  packetPath: SessionRules,
  to: Address | string,
  asked: Traffic,
  clockMs: number,
): Pick<Explanation, "allowed" | "reason" | "ruleId"> {
  let ruleId: string | undefined;
  for (const { protocol, port } of trafficPoints(asked, portEdges(rules.map(({ ports }) => ports)))) {
    const protocolClass = classOfName(protocol);
    const verdict =
      typeof to === "string"
        ? packetPath.judgeHost(to, protocolClass, port, clockMs)
        : packetPath.judge(new Opening().set(to, protocolClass, port, clockMs));
    if (!verdict.allowed) {
      return { allowed: false, reason: verdict.reason === "NEVER" ? "NEVER" : "NO_GRANT", ruleId: verdict.ruleId };
    }
    ruleId ??= verdict.ruleId;
  }
  return { allowed: true, reason: "ALLOWED_BY_RULE", ruleId };
}

/** What an admin is told: from one session of an identity, with what would allow it. */
export function explainForAdmin(
  compiler: PolicyCompiler,
  session: { readonly id: string; readonly identity: string },
  sessionsNow: OwnView["peers"],
  text: string,
  clockMs: number,
): Explained {
  const { policy } = compiler;
  const parsed = parseDestination(text, "grant");
  if (!parsed.ok) return parsed;
  const compiled = compiler.compilePeer(session.id, clockMs);
  if (compiled === undefined) return explained(parsed.value, notGranted(policy.version));
  const known = new Set(compiled.peers.map((peer) => peer.session));
  const peers = sessionsNow.filter((peer) => known.has(peer.session));
  const own = explainOwn({ ...compiled, policyVersion: policy.version, peers }, text, clockMs);
  if (!own.ok || own.explanation.allowed) return own;
  const { target } = parsed.value;
  const named = target.type === "service" || target.type === "name" ? policy.services.get(target.name) : undefined;
  const { grant, never } = named === undefined ? NO_RULES : compiler.rulesFor(session.id, named, clockMs);
  const closing = never ?? (own.explanation.reason === "NEVER" ? own.explanation.ruleId : undefined);
  if (closing !== undefined) {
    const hint = `never "${closing}" closes it; no grant opens it`;
    return explained(parsed.value, { ...own.explanation, reason: "NEVER", ruleId: closing, hint });
  }
  if (grant !== undefined) {
    const hint = `grant "${grant}" opens it, but none of its gateways offers it: wirebadge up --serve ${named!.name}`;
    return explained(parsed.value, { ...own.explanation, reason: "NO_GATEWAY", ruleId: grant, hint });
  }
  const hint = smallestGrant(policy, session.identity, parsed.value);
  return explained(parsed.value, { ...own.explanation, hint });
}

const NO_RULES = { grant: undefined, never: undefined };

function smallestGrant(policy: Policy, identity: string, { target, traffic }: Destination): string {
  if (target.type === "service" || (target.type === "name" && policy.services.has(target.name))) {
    const { name } = target;
    if (!policy.services.has(name)) return `there is no service "${shown(name)}": declare it first`;
    return hintForGrant(identity, name);
  }
  const to = target.type === "name" ? `node:${target.name} ${formatTraffic(traffic ?? ANY_TRAFFIC)}` : undefined;
  return `an admin can grant { "from": "${identity}", "to": "${to ?? formatDestination({ target, traffic })}" }`;
}
