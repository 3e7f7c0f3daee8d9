// Verdicts change only at ports that some rule names: the first port of each stretch stands for all of it.
import type { FilterProtocol, PortRange } from "../filter/contract.ts";
import type { Traffic } from "./destination.ts";

export interface TrafficPoint {
  /** "any" stands for a protocol that is neither tcp, udp nor icmp. */
  readonly protocol: FilterProtocol;
  /** 0 for protocols without ports. */
  readonly port: number;
}

/** Ports at which a rule with these ranges begins or has just ended. */
export function portEdges(ranges: Iterable<readonly PortRange[]>): Set<number> {
  const edges = new Set<number>();
  for (const list of ranges) for (const [low, high] of list) edges.add(low).add(high + 1);
  return edges;
}

/** What must be judged so that all of `traffic` is. */
export function trafficPoints({ protocol, ports }: Traffic, edges: ReadonlySet<number>): TrafficPoint[] {
  const protocols: readonly FilterProtocol[] = protocol === "any" ? ["any", "icmp", "tcp", "udp"] : [protocol];
  const tried = new Set<number>();
  for (const [low, high] of ports.length === 0 ? ([[1, 65_535]] as const) : ports) {
    tried.add(low);
    for (const edge of edges) if (low <= edge && edge <= high) tried.add(edge);
  }
  const points: TrafficPoint[] = [];
  for (const one of protocols) {
    if (one !== "tcp" && one !== "udp") points.push({ protocol: one, port: 0 });
    else for (const port of tried) points.push({ protocol: one, port });
  }
  return points;
}
