// The splitter's twin: what a super-packet becomes, one step after the other, with a new array for each.
import { concatBytes } from "../../src/base/bytes.ts";
import { type NaiveHeaders, naiveChecksum, naiveTransportChecksum, readNaiveHeaders, viewOf } from "./naive-headers.ts";

const NEEDS_CHECKSUM = 1;
const DATA_VALID = 2;

/** `input` is a vnet header and a packet. Undefined: refused. */
export function splitNaively(input: Uint8Array): Uint8Array[] | undefined {
  if (input.length <= 10) return undefined;
  const vnet = viewOf(input);
  const flags = vnet.getUint8(0);
  const type = vnet.getUint8(1);
  const gsoSize = vnet.getUint16(4, true);
  const checksumStart = vnet.getUint16(6, true);
  const checksumOffset = vnet.getUint16(8, true);
  const needsChecksum = flags % 2 === NEEDS_CHECKSUM;
  const packet = input.slice(10);

  if (type === 0) {
    if (!needsChecksum) return [packet];
    if (checksumStart + checksumOffset + 2 > packet.length) return undefined;
    const checksum = naiveChecksum(packet.slice(checksumStart));
    viewOf(packet).setUint16(checksumStart + checksumOffset, checksum === 0 ? 0xffff : checksum);
    return [packet];
  }

  const headers = readNaiveHeaders(packet);
  if (headers === undefined) return undefined;
  const { version, protocol, transportAt, payloadAt, saidBytes } = headers;
  const isAsked =
    ((type === 1 || type === 0x81) && version === 4 && protocol === 6) ||
    ((type === 4 || type === 0x84) && version === 6 && protocol === 6) ||
    (type === 5 && protocol === 17);
  if (!isAsked) return undefined;
  if (gsoSize === 0 || saidBytes !== packet.length || payloadAt === packet.length) return undefined;
  if (protocol === 17 && viewOf(packet).getUint16(transportAt + 4) !== packet.length - transportAt) return undefined;
  if (!needsChecksum && (flags & DATA_VALID) === 0) return undefined;
  if (needsChecksum && (checksumStart !== transportAt || checksumOffset !== (protocol === 6 ? 16 : 6))) {
    return undefined;
  }
  const payload = packet.slice(payloadAt);
  if (payload.length > gsoSize * 8192) return undefined;
  const pieces: Uint8Array[] = [];
  for (let from = 0; from < payload.length; from += gsoSize) {
    const isLast = from + gsoSize >= payload.length;
    const piece = concatBytes(packet.slice(0, payloadAt), payload.slice(from, from + gsoSize));
    pieces.push(finishPiece(piece, headers, pieces.length, from, isLast));
  }
  return pieces;
}

function finishPiece(
  piece: Uint8Array,
  { version, protocol, transportAt }: NaiveHeaders,
  index: number,
  from: number,
  isLast: boolean,
): Uint8Array {
  const view = viewOf(piece);
  if (version === 4) {
    view.setUint16(2, piece.length);
    view.setUint16(4, (view.getUint16(4) + index) % 0x10000);
    view.setUint16(10, 0);
    view.setUint16(10, naiveChecksum(piece.slice(0, transportAt)));
  } else {
    view.setUint16(4, piece.length - 40);
  }
  const checksumAt = transportAt + (protocol === 6 ? 16 : 6);
  if (protocol === 6) {
    view.setUint32(transportAt + 4, (view.getUint32(transportAt + 4) + from) % 2 ** 32);
    const flagsAt = transportAt + 13;
    if (!isLast) piece[flagsAt]! &= 0b1111_0110; // FIN, PSH
    if (index > 0) piece[flagsAt]! &= 0b0111_1111; // CWR
  } else {
    view.setUint16(transportAt + 4, piece.length - transportAt);
  }
  view.setUint16(checksumAt, 0);
  const checksum = naiveTransportChecksum(piece, transportAt, protocol);
  view.setUint16(checksumAt, checksum === 0 && protocol === 17 ? 0xffff : checksum);
  return piece;
}
