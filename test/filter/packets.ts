// Packets as the filter sees them, and filters with leases in order, for tests.
import { parseAddress, parsePrefix } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import type {
  AddressRule,
  DenialRecord,
  FilterState,
  FlowRecord,
  HostRule,
  Verdict,
} from "../../src/filter/contract.ts";
import { Filter } from "../../src/filter/filter.ts";
import type { FlowTable } from "../../src/filter/flow-table.ts";
import { PacketInfo } from "../../src/wire/packet.ts";

export const FOREVER_MS = 1e15;
const NO_BYTES = new Uint8Array(0);
export const PROTOCOLS = { tcp: 6, udp: 17, icmp: 58, sctp: 132 } as const;
const NUMBERS = { ...PROTOCOLS, icmp4: 1 } as const;

export interface PacketInput {
  readonly protocol: keyof typeof NUMBERS;
  readonly from: string;
  readonly sourcePort?: number;
  readonly to: string;
  readonly destinationPort?: number;
  readonly flags?: number;
  /** Type of ICMPv6, of ICMP for `icmp4`; echo identifiers are the ports. */
  readonly icmpType?: number;
  readonly fragmentId?: number;
  readonly later?: boolean;
  readonly bytes?: number;
}

export function packet(input: PacketInput): PacketInfo {
  const info = new PacketInfo();
  const [s, d] = [parseAddress(input.from)!, parseAddress(input.to)!];
  const isLater = input.later ?? false;
  Object.assign(info, {
    version: input.protocol === "icmp4" ? 4 : 6,
    totalBytes: input.bytes ?? 60,
    transportOffset: 40,
    protocol: NUMBERS[input.protocol],
    source0: s.w0,
    source1: s.w1,
    source2: s.w2,
    source3: s.w3,
    destination0: d.w0,
    destination1: d.w1,
    destination2: d.w2,
    destination3: d.w3,
    sourcePort: isLater ? 0 : (input.sourcePort ?? 0),
    destinationPort: isLater ? 0 : (input.destinationPort ?? 0),
    tcpFlags: isLater ? 0 : (input.flags ?? 0),
    icmpType: isLater ? 0 : (input.icmpType ?? 0),
    isFragment: input.fragmentId !== undefined,
    isLaterFragment: isLater,
    fragmentId: input.fragmentId ?? 0,
  });
  return info;
}

export function rule(
  id: string,
  to: string,
  protocol: AddressRule["protocol"],
  ...more: Partial<AddressRule>[]
): AddressRule {
  return Object.assign(
    { id, action: "allow" as const, sessions: ["s_a"], to: parsePrefix(to)!, protocol, ports: [] },
    ...more,
  );
}

export function state(revision: number, parts: Partial<FilterState>): FilterState {
  return {
    revision,
    policyVersion: revision,
    inbound: [],
    outbound: [],
    inboundHosts: [] as HostRule[],
    outboundHosts: [],
    revoked: [],
    ...parts,
  };
}

/** One filter with leases that last, and what it told its sink. */
export class Bench {
  readonly denied: DenialRecord[] = [];
  readonly ended: FlowRecord[] = [];
  readonly filter: Filter;

  constructor(flows?: FlowTable) {
    const sink = {
      denied: (record: DenialRecord) => void this.denied.push(record),
      flowEnded: (record: FlowRecord) => void this.ended.push(record),
    };
    this.filter = new Filter({ random: new SeededRandom(7), sink, ...(flows === undefined ? {} : { flows }) });
    this.filter.setOwnLease(FOREVER_MS);
    this.admit("s_a");
  }

  admit(session: string): number {
    const slot = this.filter.slot(session);
    this.filter.setRemoteLease(slot, FOREVER_MS);
    return slot;
  }

  in(nowMs: number, input: PacketInput, session = "s_a"): Verdict {
    return this.filter.judgeInbound(nowMs, this.filter.slot(session), packet(input), NO_BYTES, 0);
  }

  out(nowMs: number, input: PacketInput, session = "s_a"): Verdict {
    return this.filter.judgeOutbound(nowMs, this.filter.slot(session), packet(input), NO_BYTES, 0);
  }
}

export const REMOTE = "fd00::9";
export const LOCAL = "fd00::1";
export const WEB = rule("web", LOCAL, "tcp", { ports: [[80, 80]] });
export const tcp = (flags: number, port = 80, sourcePort = 4000): PacketInput => ({
  protocol: "tcp",
  from: REMOTE,
  sourcePort,
  to: LOCAL,
  destinationPort: port,
  flags,
});
export const back = (input: PacketInput): PacketInput => ({
  ...input,
  from: input.to,
  to: input.from,
  ...(input.destinationPort === undefined ? {} : { sourcePort: input.destinationPort }),
  ...(input.sourcePort === undefined ? {} : { destinationPort: input.sourcePort }),
});
export const udp = (port: number, sourcePort = 4000): PacketInput => ({
  protocol: "udp",
  from: REMOTE,
  sourcePort,
  to: LOCAL,
  destinationPort: port,
});

export const HOST: HostRule = {
  id: "host",
  action: "allow",
  sessions: ["s_a"],
  pattern: "*.internal",
  protocol: "tcp",
  ports: [],
};

export function bench(...inbound: ReturnType<typeof rule>[]): Bench {
  const made = new Bench();
  made.filter.apply(0, state(1, { inbound }));
  return made;
}
