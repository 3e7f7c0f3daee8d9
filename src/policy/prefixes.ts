// Arithmetic on prefixes: what two share, and what is left of one without another.
import {
  type Address,
  makeAddress,
  makePrefix,
  type Prefix,
  prefixContains,
  prefixesOverlap,
} from "../base/address.ts";

/** The narrower of two that overlap. */
export function intersectPrefixes(a: Prefix, b: Prefix): Prefix | undefined {
  if (!prefixesOverlap(a, b)) return undefined;
  return a.bits >= b.bits ? a : b;
}

export function prefixCovers(outer: Prefix, inner: Prefix): boolean {
  return outer.bits <= inner.bits && prefixContains(outer, inner.address);
}

/**
 * `whole` without `hole`, as few prefixes as there are bits between the two; `whole` itself when they don't overlap.
 */
export function withoutPrefix(whole: Prefix, hole: Prefix): Prefix[] {
  if (!prefixesOverlap(whole, hole)) return [whole];
  const rest: Prefix[] = [];
  for (let bits = hole.bits; bits > whole.bits; bits--) rest.push(makePrefix(flipBit(hole.address, bits - 1), bits));
  return rest;
}

function flipBit(address: Address, index: number): Address {
  const bit = 1 << (31 - (index & 31));
  const word = index >>> 5;
  return makeAddress(
    word === 0 ? address.w0 ^ bit : address.w0,
    word === 1 ? address.w1 ^ bit : address.w1,
    word === 2 ? address.w2 ^ bit : address.w2,
    word === 3 ? address.w3 ^ bit : address.w3,
  );
}
