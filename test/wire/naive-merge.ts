// The merger's twin: which packets become one, by a list of items and the rules one after the other. A packet list goes
// in; out come the writes, each a vnet header and a packet.
import { concatBytes } from "../../src/base/bytes.ts";
import {
  type NaiveHeaders,
  naiveChecksum,
  naivePseudoHeader,
  naiveTransportChecksum,
  readNaiveHeaders,
  viewOf,
} from "./naive-headers.ts";
import { vnetHeader } from "./super-packets.ts";

interface Item {
  readonly packets: Uint8Array[];
  /** Undefined: of a packet whose flow can't be told. */
  readonly flow: string | undefined;
  readonly headers: NaiveHeaders | undefined;
  isOpen: boolean;
}

const flagsOf = (packet: Uint8Array, { transportAt }: NaiveHeaders): number => packet[transportAt + 13]!;
const idOf = (packet: Uint8Array): number => viewOf(packet).getUint16(4);
const sequenceOf = (packet: Uint8Array, { transportAt }: NaiveHeaders): number =>
  viewOf(packet).getUint32(transportAt + 4);
const payloadOf = (packet: Uint8Array, { payloadAt }: NaiveHeaders): number => packet.length - payloadAt;
const isEqual = (a: Uint8Array, b: Uint8Array, from: number, to: number): boolean =>
  a.slice(from, to).join() === b.slice(from, to).join();

/** Ports are told by any TCP or UDP header that is there, without options, extension headers or fragments before it. */
export function flowOf(packet: Uint8Array): string | undefined {
  const version = (packet[0] ?? 0) >> 4;
  const ipBytes = version === 4 ? 20 : 40;
  if ((version !== 4 && version !== 6) || packet.length < ipBytes + 8) return undefined;
  if (version === 4 && (packet[0] !== 0x45 || viewOf(packet).getUint16(6) % 0x4000 !== 0 || packet[6]! >= 0x80)) {
    return undefined;
  }
  const protocol = version === 4 ? packet[9]! : packet[6]!;
  if (protocol !== 6 && protocol !== 17) return undefined;
  return [protocol, ...packet.slice(version === 4 ? 12 : 8, ipBytes + 4)].join();
}

function isMergeable(packet: Uint8Array, headers: NaiveHeaders | undefined, uso: boolean): headers is NaiveHeaders {
  if (headers === undefined || headers.saidBytes !== packet.length || payloadOf(packet, headers) === 0) return false;
  const { protocol, transportAt } = headers;
  const view = viewOf(packet);
  if (protocol === 17) {
    return (
      uso && view.getUint16(transportAt + 4) === packet.length - transportAt && view.getUint16(transportAt + 6) > 0
    );
  }
  const onlyAck = flagsOf(packet, headers) === 0x10 || flagsOf(packet, headers) === 0x18;
  return onlyAck && packet[transportAt + 12]! % 16 === 0;
}

function isRight(packet: Uint8Array, { version, transportAt, protocol }: NaiveHeaders): boolean {
  if (version === 4 && naiveChecksum(packet.slice(0, 20)) !== 0) return false;
  return naiveTransportChecksum(packet, transportAt, protocol) === 0;
}

function hasPush(packet: Uint8Array, headers: NaiveHeaders): boolean {
  return headers.protocol === 6 && flagsOf(packet, headers) === 0x18;
}

/** Whether ids count up from the first, or stay the same where DF says that they mean nothing. */
function idsFit(packets: readonly Uint8Array[]): boolean {
  const [first] = packets;
  const isCounting = packets.every((packet, i) => idOf(packet) === (idOf(first!) + i) % 0x10000);
  const isFixed = packets.every((packet) => idOf(packet) === idOf(first!) && packet[6] === 0x40);
  return isCounting || isFixed;
}

function fits(item: Item, packet: Uint8Array, headers: NaiveHeaders): boolean {
  const first = item.packets[0]!;
  const { version, protocol, transportAt, payloadAt } = headers;
  const same = (from: number, to: number): boolean => isEqual(first, packet, from, to);
  const payloads = item.packets.map((one) => one.length - payloadAt);
  if (item.headers?.payloadAt !== payloadAt) return false;
  const carried = payloads.reduce((sum, bytes) => sum + bytes, 0);
  if (packet.length > first.length || payloadAt + carried + payloadOf(packet, headers) > 65_535) return false;
  if (version === 4 && !(same(1, 2) && same(6, 7) && same(8, 9) && idsFit([...item.packets, packet]))) return false;
  if (version === 6 && !(same(0, 4) && same(7, 8))) return false;
  if (protocol === 17) return true;
  if (sequenceOf(packet, headers) !== (sequenceOf(first, headers) + carried) % 2 ** 32) return false;
  const acknowledgmentIsSame = same(transportAt + 8, transportAt + 12);
  const windowIsSame = same(transportAt + 14, transportAt + 16);
  const urgentPointerAndOptionsAreSame = same(transportAt + 18, payloadAt);
  return acknowledgmentIsSame && windowIsSame && urgentPointerAndOptionsAreSame;
}

export function mergeNaively(packets: readonly Uint8Array[], uso: boolean): Uint8Array[] {
  const items: Item[] = [];
  for (const packet of packets) {
    const flow = flowOf(packet);
    const headers = readNaiveHeaders(packet);
    const mergeable = isMergeable(packet, headers, uso);
    const begin = (isOpen: boolean): unknown => items.push({ packets: [packet], flow, headers, isOpen });
    if (flow === undefined) {
      for (const item of items) item.isOpen = false;
      begin(false);
      continue;
    }
    const item = items.find((one) => one.isOpen && one.flow === flow);
    const opens = mergeable && !hasPush(packet, headers);
    if (item === undefined) {
      begin(opens);
    } else if (!mergeable || !fits(item, packet, headers) || !isRight(item.packets[0]!, item.headers!)) {
      item.isOpen = false;
      begin(opens);
    } else if (!isRight(packet, headers)) {
      item.isOpen = false;
      begin(false);
    } else {
      item.packets.push(packet);
      item.isOpen = opens && packet.length === item.packets[0]!.length && item.packets.length < 64;
    }
  }
  return items.map(writtenFor);
}

function writtenFor({ packets, headers }: Item): Uint8Array {
  const [first] = packets;
  if (packets.length === 1) return concatBytes(new Uint8Array(10), first!);
  const { version, protocol, transportAt, payloadAt } = headers!;
  const merged = concatBytes(first!.slice(0, payloadAt), ...packets.map((packet) => packet.slice(payloadAt)));
  const view = viewOf(merged);
  const transportBytes = merged.length - transportAt;
  if (version === 4) {
    view.setUint16(2, merged.length);
    view.setUint16(10, 0);
    view.setUint16(10, naiveChecksum(merged.slice(0, 20)));
  } else {
    view.setUint16(4, transportBytes);
  }
  if (protocol === 17) view.setUint16(transportAt + 4, transportBytes);
  else merged[transportAt + 13] = flagsOf(packets.at(-1)!, headers!);
  const checksumOffset = protocol === 6 ? 16 : 6;
  const pseudo = Uint8Array.from(naivePseudoHeader(merged, protocol, transportBytes));
  view.setUint16(transportAt + checksumOffset, 0xffff - naiveChecksum(pseudo));
  const type = protocol === 17 ? 5 : version === 4 ? 1 : 4;
  return concatBytes(vnetHeader(1, type, payloadAt, first!.length - payloadAt, transportAt, checksumOffset), merged);
}
