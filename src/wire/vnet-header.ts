// The ten bytes before each packet of a TUN device opened with IFF_VNET_HDR: struct virtio_net_hdr (virtio 1.2 §5.1.6,
// without num_buffers), whose words Linux keeps in the machine's order, little-endian on all that this runs on. What
// each field means for a packet that is read: wire/split.ts; for one that is written: wire/merge.ts.
//
//   0 flags | 1 gso_type | 2 hdr_len | 4 gso_size | 6 csum_start | 8 csum_offset
//
// Counted from the packet's first byte, which lies behind these ten.

export const VNET_HEADER_BYTES = 10;

/** flags: the checksum field holds the pseudo-header's sum alone. */
export const VNET_NEEDS_CHECKSUM = 1;
/** flags: the checksum was found right. */
export const VNET_DATA_VALID = 2;

export const GSO_NONE = 0;
export const GSO_TCP4 = 1;
export const GSO_TCP6 = 4;
export const GSO_UDP_L4 = 5;
/** A bit beside GSO_TCP4 or GSO_TCP6: CWR is set, which the first segment alone may carry. */
export const GSO_ECN = 0x80;

export function vnetFlags(bytes: Uint8Array, at: number): number {
  return bytes[at]!;
}

export function vnetGsoType(bytes: Uint8Array, at: number): number {
  return bytes[at + 1]!;
}

/** Payload bytes of each segment but the last. */
export function vnetGsoSize(bytes: Uint8Array, at: number): number {
  return readU16Le(bytes, at + 4);
}

/** From the packet's start to where the checksum begins. */
export function vnetChecksumStart(bytes: Uint8Array, at: number): number {
  return readU16Le(bytes, at + 6);
}

/** From there to its field. */
export function vnetChecksumOffset(bytes: Uint8Array, at: number): number {
  return readU16Le(bytes, at + 8);
}

/** `headerBytes` is hdr_len: of the IP and transport headers together. */
export function writeVnetHeader(
  bytes: Uint8Array,
  at: number,
  flags: number,
  gsoType: number,
  headerBytes: number,
  gsoSize: number,
  checksumStart: number,
  checksumOffset: number,
): void {
  bytes[at] = flags;
  bytes[at + 1] = gsoType;
  writeU16Le(bytes, at + 2, headerBytes);
  writeU16Le(bytes, at + 4, gsoSize);
  writeU16Le(bytes, at + 6, checksumStart);
  writeU16Le(bytes, at + 8, checksumOffset);
}

/** Of a packet that is whole and carries its own checksum. */
export function writePlainVnetHeader(bytes: Uint8Array, at: number): void {
  writeVnetHeader(bytes, at, 0, GSO_NONE, 0, 0, 0, 0);
}

function readU16Le(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

function writeU16Le(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
}
