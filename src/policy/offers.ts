// Routes are offers: a peer carries only what it offers itself, and only where the policy (`via`) or its enrolment
// token (`mayRoute`) names it. All else is refused to it with the reason.
import { hostMatches } from "../filter/rules.ts";
import { formatRouteTarget, parseRouteTarget, type RouteTarget } from "./destination.ts";
import type { Policy } from "./policy.ts";
import { prefixCovers } from "./prefixes.ts";
import { isLabel, type Selector, shown } from "./selector.ts";
import type { WorldIdentity, WorldNetwork, WorldSession } from "./world.ts";

export interface RefusedOffer {
  /** As offered: a CIDR, `host:PATTERN` or `service:NAME`. */
  readonly offer: string;
  readonly reason: string;
}

export interface AcceptedOffers {
  readonly services: readonly string[];
  readonly routes: readonly RouteTarget[];
  readonly refused: readonly RefusedOffer[];
  /**
   * What the policy's `via` names it for (by name, not by `node:*`), but it does not offer: nothing is dialled there.
   */
  readonly missing: readonly string[];
}

// The same words whether the thing exists or not: an offer is no way to ask what there is.
const NOT_NAMED = "neither the policy's `via` nor the enrolment token's --may-route names this identity for it";

/** `via` names nodes only: by name, by `node:*`, or by a tag. */
export function viaNames(via: readonly Selector[], identity: WorldIdentity): boolean {
  if (identity.kind !== "node") return false;
  return via.some(
    (selector) =>
      selector.type === "kind" ||
      (selector.type === "identity" && selector.name === identity.name) ||
      (selector.type === "tag" && identity.tags.includes(selector.name)),
  );
}

/** Does every name under `inner` stand under `outer` too? */
export function hostPatternCovers(outer: string, inner: string): boolean {
  if (outer === "*" || outer === inner) return true;
  if (inner === "*" || !outer.startsWith("*.")) return false;
  return hostMatches(outer, inner.startsWith("*.") ? inner.slice(2) : inner);
}

/** What of the session's offers stands under this policy. */
export function acceptOffers(
  policy: Policy,
  network: WorldNetwork,
  identity: WorldIdentity,
  session: WorldSession,
): AcceptedOffers {
  const refused: RefusedOffer[] = [];
  const byToken = new Set(session.mayRoute);
  const tokenRoutes = session.mayRoute.flatMap((text) => {
    const parsed = text.startsWith("service:") ? undefined : parseRouteTarget(text);
    return parsed?.ok ? [parsed.value] : [];
  });

  const services = new Set<string>();
  for (const name of session.offeredServices) {
    if (name === "*") {
      for (const service of policy.services.values()) {
        if (viaNames(service.via, identity) || byToken.has(`service:${service.name}`)) services.add(service.name);
      }
      continue;
    }
    const service = policy.services.get(name);
    const isNamed = service !== undefined && (viaNames(service.via, identity) || byToken.has(`service:${name}`));
    if (isNamed) services.add(name);
    else refused.push({ offer: `service:${isLabel(name) ? name : shown(name)}`, reason: NOT_NAMED });
  }

  const routes = new Map<string, RouteTarget>();
  for (const text of session.offeredRoutes) {
    const parsed = parseRouteTarget(text);
    if (!parsed.ok) {
      refused.push({ offer: shown(text), reason: `${parsed.refusal.message}: ${parsed.refusal.hint}` });
      continue;
    }
    const target = parsed.value;
    const offer = formatRouteTarget(target);
    if (target.type === "prefix" && [network.ula, network.pool4].some((own) => prefixCovers(own, target.prefix))) {
      refused.push({ offer, reason: "it lies inside the network's own addresses" });
      continue;
    }
    const isNamed =
      policy.routes.some((route) => routeCovers(route.target, target) && viaNames(route.via, identity)) ||
      tokenRoutes.some((allowed) => routeCovers(allowed, target));
    if (isNamed) routes.set(offer, target);
    else refused.push({ offer, reason: NOT_NAMED });
  }
  return {
    services: [...services],
    routes: [...routes.values()],
    refused,
    missing: missingOf(policy, identity, services, routes),
  };
}

function routeCovers(outer: RouteTarget, inner: RouteTarget): boolean {
  if (outer.type === "prefix") return inner.type === "prefix" && prefixCovers(outer.prefix, inner.prefix);
  return inner.type === "host" && hostPatternCovers(outer.pattern, inner.pattern);
}

function missingOf(
  policy: Policy,
  identity: WorldIdentity,
  services: ReadonlySet<string>,
  routes: ReadonlyMap<string, RouteTarget>,
): string[] {
  const byName = (via: readonly Selector[]): boolean =>
    via.some((selector) => selector.type === "identity" && selector.name === identity.name);
  const missing: string[] = [];
  for (const service of policy.services.values()) {
    if (byName(service.via) && !services.has(service.name)) missing.push(`service:${service.name}`);
  }
  for (const route of policy.routes) {
    const offered = [...routes.values()].some((target) => routeCovers(route.target, target));
    if (byName(route.via) && !offered) missing.push(formatRouteTarget(route.target));
  }
  return missing;
}
