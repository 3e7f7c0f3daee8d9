// The peer link: small datagrams between the engines of two Wirebadge peers, inside their tunnel, UDP 51821 of their
// overlay IPv6 addresses. Codes, never free text. Byte layouts are big-endian:
//   LEASE     1 | signed lease
//   LEASE_ACK 2 | epoch u32 | serial high u32 | serial low u32
//   DENIAL    3 | reason u8 | id 12 ASCII | policy version u32 | protocol u8 | source port u16 | destination port u16 |
// destination 16
import { type Address, addressFromBytes, addressTo16 } from "../base/address.ts";
import { readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import type { VerdictReason } from "../filter/contract.ts";

export const PEER_LINK_PORT = 51_821;
export const LEASE_ACK_BYTES = 13;
export const DENIAL_BYTES = 39;

const TYPE_LEASE = 1;
const TYPE_LEASE_ACK = 2;
const TYPE_DENIAL = 3;
const DENIAL_ID = /^d_[0-9a-hjkmnp-tv-z]{10}$/;

/** What a peer may be told; the place in the list is the code on the wire. Everything else is told as NO_GRANT. */
const TOLD_REASONS: readonly VerdictReason[] = ["NO_GRANT", "NEVER", "LEASE_ENDED", "NO_LEASE", "SESSION_REVOKED"];

export interface LinkDenial {
  readonly id: string;
  readonly reason: VerdictReason;
  readonly policyVersion: number;
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly destination: Address;
}

export type LinkMessage =
  | { readonly kind: "lease"; readonly lease: Uint8Array }
  | { readonly kind: "lease-ack"; readonly epoch: number; readonly serial: number }
  | { readonly kind: "denial"; readonly denial: LinkDenial };

export function encodeLease(lease: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(1 + lease.length);
  bytes[0] = TYPE_LEASE;
  bytes.set(lease, 1);
  return bytes;
}

export function encodeLeaseAck(epoch: number, serial: number): Uint8Array {
  const bytes = new Uint8Array(LEASE_ACK_BYTES);
  bytes[0] = TYPE_LEASE_ACK;
  writeU32(bytes, 1, epoch);
  writeU32(bytes, 5, Math.floor(serial / 2 ** 32));
  writeU32(bytes, 9, serial >>> 0);
  return bytes;
}

export function encodeDenial(denial: LinkDenial): Uint8Array {
  const bytes = new Uint8Array(DENIAL_BYTES);
  bytes[0] = TYPE_DENIAL;
  bytes[1] = Math.max(0, TOLD_REASONS.indexOf(denial.reason));
  for (let i = 0; i < 12; i++) bytes[2 + i] = denial.id.charCodeAt(i);
  writeU32(bytes, 14, denial.policyVersion);
  bytes[18] = denial.protocol;
  writeU16(bytes, 19, denial.sourcePort);
  writeU16(bytes, 21, denial.destinationPort);
  bytes.set(addressTo16(denial.destination), 23);
  return bytes;
}

function decodeDenial(bytes: Uint8Array): LinkDenial | undefined {
  const reason = TOLD_REASONS[bytes[1]!];
  const id = String.fromCharCode(...bytes.subarray(2, 14));
  if (reason === undefined || !DENIAL_ID.test(id)) return undefined;
  return {
    id,
    reason,
    policyVersion: readU32(bytes, 14),
    protocol: bytes[18]!,
    sourcePort: readU16(bytes, 19),
    destinationPort: readU16(bytes, 21),
    destination: addressFromBytes(bytes, 23, 16),
  };
}

/** Undefined: malformed or of an unknown type, to be counted and dropped. `bytes` is the UDP payload. */
export function decodeLinkMessage(bytes: Uint8Array): LinkMessage | undefined {
  switch (bytes[0]) {
    case TYPE_LEASE:
      return bytes.length > 1 ? { kind: "lease", lease: bytes.slice(1) } : undefined;
    case TYPE_LEASE_ACK: {
      const high = bytes.length === LEASE_ACK_BYTES ? readU32(bytes, 5) : 2 ** 21;
      if (high >= 2 ** 21) return undefined; // serials stay below 2^53
      return { kind: "lease-ack", epoch: readU32(bytes, 1), serial: high * 2 ** 32 + readU32(bytes, 9) };
    }
    case TYPE_DENIAL: {
      const denial = bytes.length === DENIAL_BYTES ? decodeDenial(bytes) : undefined;
      return denial === undefined ? undefined : { kind: "denial", denial };
    }
    default:
      return undefined;
  }
}
