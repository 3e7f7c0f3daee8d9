// `can DEST` about itself: what the packet path would say to a flow that this session opened now. For what it may
// neither reach nor ask for the answer is NO_GRANT, in the same words as for a name that doesn't exist.
import { type Address, parseAddress } from "../base/address.ts";
import { unreachable } from "../base/assert.ts";
import { WirebadgeError } from "../base/errors.ts";
import type { NetmapView, ServiceEntry } from "../control/netmap.ts";
import type { FilterProtocol, PortRange, Verdict } from "../filter/contract.ts";
import { type Destination, parseDestination } from "../policy/destination.ts";
import { longestMatch } from "./host-name.ts";
import type { Can } from "./local-api-schema.ts";
import type { PeerViews } from "./peer-views.ts";

interface Wanted {
  readonly protocol: FilterProtocol;
  readonly ports: readonly PortRange[];
}

const UNKNOWN: Verdict = { allowed: false, reason: "NO_GRANT", ruleId: undefined };
const HOST_PATTERN = "host:";

/** @throws WirebadgeError USAGE when the text is not one destination that can be opened */
export function canReach(text: string, views: PeerViews): Can {
  const parsed = parseDestination(text, "grant");
  if (!parsed.ok) throw new WirebadgeError("USAGE", parsed.refusal.message, { hint: parsed.refusal.hint });
  const netmap = views.netmap();
  const answer = netmap === undefined ? { verdict: UNKNOWN } : judge(parsed.value, text, netmap, views);
  const { verdict, hint } = answer;
  return {
    destination: text,
    allowed: verdict.allowed,
    reason: verdict.reason,
    ...(verdict.ruleId === undefined ? {} : { ruleId: verdict.ruleId }),
    ...(netmap === undefined ? {} : { policyVersion: netmap.policyVersion, revision: netmap.revision }),
    ...(hint === undefined ? {} : { hint }),
  };
}

interface Answer {
  readonly verdict: Verdict;
  readonly hint?: string;
}

function judge(destination: Destination, text: string, netmap: NetmapView, views: PeerViews): Answer {
  const { target, traffic } = destination;
  switch (target.type) {
    case "service":
      return judgeService(
        netmap.services.find((entry) => entry.name === target.name),
        views,
      );
    case "name": {
      const service = netmap.services.find((entry) => entry.name === target.name);
      if (service !== undefined) return judgeService(service, views);
      return judgeIdentity(`node:${target.name}`, traffic, text, netmap, views);
    }
    case "prefix":
      if (target.prefix.bits !== 128) throw notOne(text, "name one address, not a range");
      return judgeAll([target.prefix.address], needTraffic(traffic, text), views);
    case "host":
      return judgeHost(target.pattern, needTraffic(traffic, text), text, netmap, views);
    case "selector":
      if (target.selector.type !== "identity") throw notOne(text, "name one node, agent, user, service or address");
      return judgeIdentity(target.selector.name, traffic, text, netmap, views);
    default:
      return unreachable(target);
  }
}

function judgeService(service: ServiceEntry | undefined, views: PeerViews): Answer {
  if (service === undefined) return { verdict: UNKNOWN };
  const { denied } = service;
  if (denied !== undefined) {
    return { verdict: { allowed: false, reason: denied.reason, ruleId: denied.ruleId }, hint: denied.hint };
  }
  const addresses = service.gateways.flatMap(({ address }) => parseAddress(address) ?? []);
  if (addresses.length === 0) {
    return { verdict: UNKNOWN, hint: `no gateway offers ${service.name} now` };
  }
  return judgeAll(addresses, service, views);
}

function judgeIdentity(
  identity: string,
  traffic: Wanted | undefined,
  text: string,
  netmap: NetmapView,
  views: PeerViews,
): Answer {
  const wanted = needTraffic(traffic, text);
  const peers = netmap.peers.filter((peer) => peer.identity === identity);
  return judgeAll(
    peers.flatMap((peer) => peer.addresses.slice(0, 1)).flatMap((address) => parseAddress(address) ?? []),
    wanted,
    views,
  );
}

function judgeHost(name: string, wanted: Wanted, text: string, netmap: NetmapView, views: PeerViews): Answer {
  if (name.includes("*")) throw notOne(text, "name one host, not a pattern");
  const route = longestMatch(name, netmap.hostRoutes, (entry) => entry.pattern.replace(HOST_PATTERN, ""));
  const gateway = route?.gateways[0];
  if (gateway === undefined) return { verdict: UNKNOWN };
  return { verdict: everyPort(wanted, (port) => views.peekHost(gateway, name, wanted.protocol, port)) };
}

/** The first address that allows all of it, else the verdict for the first. */
function judgeAll(addresses: readonly Address[], wanted: Wanted, views: PeerViews): Answer {
  let first: Verdict | undefined;
  for (const address of addresses) {
    const verdict = everyPort(wanted, (port) => views.peekOutbound(address, wanted.protocol, port));
    if (verdict.allowed) return { verdict };
    first ??= verdict;
  }
  return { verdict: first ?? UNKNOWN };
}

/** Allowed when both ends of every range are: what a person asks with a range is "all of it". */
function everyPort(wanted: Wanted, judgePort: (port: number) => Verdict): Verdict {
  const ports = wanted.ports.length === 0 ? [0] : wanted.ports.flat();
  let verdict = UNKNOWN;
  for (const port of ports) {
    verdict = judgePort(port);
    if (!verdict.allowed) return verdict;
  }
  return verdict;
}

function needTraffic(traffic: Wanted | undefined, text: string): Wanted {
  if (traffic !== undefined) return traffic;
  throw new WirebadgeError("USAGE", `${JSON.stringify(text)} names no protocol and port`, {
    hint: `write them behind one space, as ${JSON.stringify(`${text} tcp:443`)}`,
  });
}

function notOne(text: string, hint: string): WirebadgeError {
  return new WirebadgeError("USAGE", `${JSON.stringify(text)} is more than one destination`, { hint });
}
