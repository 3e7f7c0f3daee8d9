// The X25519 public keys whose Diffie–Hellman result is zero whatever the private key (RFC 7748 §6.1, RFC 7748 §7). A
// peer with one of them is refused at configuration, without a scalar multiplication for each of ten thousand peers.
import { fromHex } from "../base/bytes.ts";

const LOW_ORDER_POINTS = [
  "0000000000000000000000000000000000000000000000000000000000000000", // 0, order 4 (the twist's 2)
  "0100000000000000000000000000000000000000000000000000000000000000", // 1, order 4
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800", // order 8
  "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157", // order 8
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p − 1, order 2
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p, which is 0
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p + 1, which is 1
].map((hex) => fromHex(hex)!);

/** True for every encoding of a low-order point; the top bit is ignored as X25519 ignores it. */
export function isLowOrderPoint(publicKey: Uint8Array): boolean {
  return LOW_ORDER_POINTS.some((point) =>
    point.every((byte, i) => byte === (i === 31 ? publicKey[i]! & 0x7f : publicKey[i])),
  );
}
