// What the hosts behind the engines say: answers to what they are asked, what a hostile one makes up, and the packets
// that try whether two may talk.
import { type Address, isV4, makeV4 } from "../base/address.ts";
import type { SeededRandom } from "../base/random.ts";
import { SIM_PORTS } from "./documents.ts";
import type { SentPacket } from "./ledger.ts";
import type { Facts, Mark } from "./packets.ts";
import * as packets from "./packets.ts";
import type { HostileStep, TrafficStep } from "./scenario.ts";

export interface HostAnswer {
  readonly delayMs: number;
  readonly facts: Facts;
  readonly mark: Omit<Mark, "id">;
}

/** What a host does with a packet that it got; undefined: nothing. */
export function hostAnswer({ facts, mark }: SentPacket, random: SeededRandom): HostAnswer | undefined {
  if (mark.hops === 0 || mark.role === "silent") return undefined;
  const answer = answerTo(facts, mark, random);
  if (answer === undefined) return undefined;
  const isProbe = mark.role === "probe";
  return {
    delayMs: isProbe ? 0 : random.below(40),
    facts: answer,
    mark: { role: isProbe ? "answer" : "ask", hops: mark.hops - 1 },
  };
}

function answerTo(facts: Facts, mark: Mark, random: SeededRandom): Facts | undefined {
  if (facts.quoted !== undefined || packets.isEchoReply(facts)) return undefined;
  const back = packets.turned(facts);
  switch (facts.protocol) {
    case packets.TCP: {
      const { tcpFlags } = facts;
      if ((tcpFlags & packets.RST) !== 0) return undefined;
      if ((tcpFlags & (packets.SYN | packets.ACK)) === packets.SYN) {
        return { ...back, tcpFlags: packets.SYN | packets.ACK };
      }
      return { ...back, tcpFlags: mark.hops === 1 ? packets.FIN | packets.ACK : packets.ACK };
    }
    case packets.UDP:
      return mark.role === "ask" && random.chance(0.1) ? packets.unreachableFacts(facts) : back;
    default:
      return packets.echoFacts(back.source, back.destination, back.sourcePort, true);
  }
}

/** The `index`-th packet of a step. */
export function trafficFacts(step: TrafficStep, index: number, source: Address, destination: Address): Facts {
  const { kind, sourcePort, port, everyMs } = step;
  switch (kind) {
    case "tcp":
      if (everyMs === 0) return packets.tcpFacts(source, destination, sourcePort + index, port, packets.SYN);
      return packets.tcpFacts(source, destination, sourcePort, port, index === 0 ? packets.SYN : packets.ACK);
    case "echo":
      return packets.echoFacts(source, destination, sourcePort, false);
    case "udp":
    case "fragments":
      return packets.udpFacts(source, destination, sourcePort, port);
  }
}

/** From a forged source, or an answer that nobody asked for. */
export function hostileFacts(step: HostileStep, source: Address, destination: Address): Facts {
  const udp = packets.udpFacts(source, destination, step.sourcePort, step.port);
  if (step.kind === "forge") return udp;
  const tcp = (tcpFlags: number): Facts => ({ ...udp, protocol: packets.TCP, tcpFlags });
  switch (step.answer) {
    case "syn-ack":
      return tcp(packets.SYN | packets.ACK);
    case "ack":
      return tcp(packets.ACK);
    case "reset":
      return tcp(packets.RST);
    case "echo-reply":
      return packets.echoFacts(source, destination, step.port, true);
    case "icmp-error":
      return packets.unreachableFacts(packets.turned(udp));
  }
}

/** Everything that is worth trying at an address, one of each. */
export function* probesTo(source: Address, destination: Address): Generator<Facts> {
  for (const port of SIM_PORTS) {
    yield packets.udpFacts(source, destination, 50_000 + port, port);
    yield packets.tcpFacts(source, destination, 50_000 + port, port, packets.SYN);
  }
  yield packets.echoFacts(source, destination, 50_001, false);
}

/** Of the same family, for a packet to `destination`. */
export function sourceFor(addresses: readonly Address[], destination: Address): Address | undefined {
  return addresses.find((address) => isV4(address) === isV4(destination));
}

/** An outer address that no station has. */
export function strangerAddress(random: SeededRandom): Address {
  return makeV4(0xcb007100 + random.below(256));
}
