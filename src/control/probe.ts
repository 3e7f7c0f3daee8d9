// The endpoint probe: a peer's WireGuard socket asks the coordinator over UDP "which endpoint do you see me at?". The
// first byte, 0x77, is no WireGuard message type, so both share one socket. Requests and answers have one size, so that
// the port amplifies nothing; both carry a MAC under a key from the control channel, and wrong ones get silence.
import { addressFromBytes, addressTo16, type Endpoint } from "../base/address.ts";
import { equalBytes, readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import { type Crypto, KEY_BYTES, MAC_BYTES } from "../crypto/provider.ts";
import { inContext } from "./contexts.ts";

export const PROBE_FIRST_BYTE = 0x77;
export const PROBE_BYTES = 64;
export const PROBE_ID_BYTES = 8;
const REQUEST = 1;
const ANSWER = 2;

// first byte 1 · kind 1 · probe id 8 · sequence 6 · (answer: address 16 · port 2) · zero up to 48 · MAC 16
const ID_AT = 2;
const SEQUENCE_AT = 10;
const ADDRESS_AT = 16;
const PORT_AT = 32;
const MAC_AT = PROBE_BYTES - MAC_BYTES;

export interface ProbeKey {
  /** 8 bytes, names the key. */
  readonly id: Uint8Array;
  /** 32 bytes. */
  readonly key: Uint8Array;
}

export type ProbeDrop =
  | "probe-bad-length"
  | "probe-not-a-probe"
  | "probe-unknown-key"
  | "probe-bad-mac"
  | "probe-other-sequence";

/** True for a datagram that is meant to be a probe or its answer, not a WireGuard message. */
export function isProbe(datagram: Uint8Array): boolean {
  return datagram.length === PROBE_BYTES && datagram[0] === PROBE_FIRST_BYTE;
}

function frame(kind: number, id: Uint8Array, sequence: number): Uint8Array {
  const bytes = new Uint8Array(PROBE_BYTES);
  bytes[0] = PROBE_FIRST_BYTE;
  bytes[1] = kind;
  bytes.set(id, ID_AT);
  writeU16(bytes, SEQUENCE_AT, Math.floor(sequence / 2 ** 32));
  writeU32(bytes, SEQUENCE_AT + 2, sequence % 2 ** 32);
  return bytes;
}

function macOf(crypto: Crypto, key: Uint8Array, bytes: Uint8Array): Uint8Array {
  const context = bytes[1] === REQUEST ? "probe" : "probeAnswer";
  return crypto.mac(key, inContext(context, bytes.subarray(0, MAC_AT)));
}

function sequenceOf(bytes: Uint8Array): number {
  return readU16(bytes, SEQUENCE_AT) * 2 ** 32 + readU32(bytes, SEQUENCE_AT + 2);
}

/** `sequence` rises with every probe under one key (< 2^48). */
export function encodeProbe(crypto: Crypto, key: ProbeKey, sequence: number): Uint8Array {
  const bytes = frame(REQUEST, key.id, sequence);
  bytes.set(macOf(crypto, key.key, bytes), MAC_AT);
  return bytes;
}

/** For the coordinator, before the MAC: the 8-byte id of the key to look up; undefined when it is no probe. */
export function probeId(datagram: Uint8Array): Uint8Array | undefined {
  return isProbe(datagram) && datagram[1] === REQUEST ? datagram.subarray(ID_AT, ID_AT + PROBE_ID_BYTES) : undefined;
}

/** The sequence number of an authentic probe. */
export function openProbe(crypto: Crypto, key: Uint8Array, datagram: Uint8Array): number | ProbeDrop {
  if (datagram.length !== PROBE_BYTES) return "probe-bad-length";
  if (datagram[0] !== PROBE_FIRST_BYTE || datagram[1] !== REQUEST || key.length !== KEY_BYTES)
    return "probe-not-a-probe";
  if (!equalBytes(macOf(crypto, key, datagram), datagram.subarray(MAC_AT))) return "probe-bad-mac";
  return sequenceOf(datagram);
}

/** As long as the probe, whatever it says. */
export function encodeProbeAnswer(crypto: Crypto, key: ProbeKey, sequence: number, seen: Endpoint): Uint8Array {
  const bytes = frame(ANSWER, key.id, sequence);
  bytes.set(addressTo16(seen.address), ADDRESS_AT);
  writeU16(bytes, PORT_AT, seen.port);
  bytes.set(macOf(crypto, key.key, bytes), MAC_AT);
  return bytes;
}

/** The endpoint that the coordinator saw, if the answer is authentic and to the probe with this sequence number. */
export function openProbeAnswer(
  crypto: Crypto,
  key: ProbeKey,
  sequence: number,
  datagram: Uint8Array,
): Endpoint | ProbeDrop {
  if (datagram.length !== PROBE_BYTES) return "probe-bad-length";
  if (datagram[0] !== PROBE_FIRST_BYTE || datagram[1] !== ANSWER) return "probe-not-a-probe";
  if (!equalBytes(datagram.subarray(ID_AT, ID_AT + PROBE_ID_BYTES), key.id)) return "probe-unknown-key";
  if (!equalBytes(macOf(crypto, key.key, datagram), datagram.subarray(MAC_AT))) return "probe-bad-mac";
  if (sequenceOf(datagram) !== sequence) return "probe-other-sequence";
  return { address: addressFromBytes(datagram, ADDRESS_AT, 16), port: readU16(datagram, PORT_AT) };
}
