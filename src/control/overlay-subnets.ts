// How a network's own addresses are divided: the 16 bits after the ULA's 48 say what an address is of. The coordinator
// gives addresses out by it; a peer finds in it the addresses that nobody is ever given.
import { type Address, makeAddress, makeV4, type Prefix } from "../base/address.ts";

export const SUBNET_RESERVED = 0;
export const SUBNET_SESSIONS = 1;
export const SUBNET_SERVICES = 2;

const RESOLVER_ID = 0x53; // reads as port 53 does

/** `fd…:SUBNET:w2:w3`, of a ULA /48. */
export function addressInSubnet(ula: Prefix, subnet: number, w2: number, w3: number): Address {
  const { w0, w1 } = ula.address;
  return makeAddress(w0, ((w1 & 0xffff0000) | subnet) >>> 0, w2, w3);
}

/** Addresses to give out lie between a pool's first and its last: some stacks take those for network and broadcast. */
export function usableOfPool4(pool: Prefix): { readonly first: number; readonly count: number } {
  return { first: pool.address.w3 + 1, count: 2 ** (128 - pool.bits) - 2 };
}

/**
 * Where a peer's own resolver is reached from its host, the same in every network: fd…::53, and the first address of
 * the IPv4 pool for hosts without IPv6. No session and no service ever has one of them, so nothing is sent to them over
 * the network.
 */
export function resolverAddresses(ula: Prefix, pool4: Prefix): { readonly v6: Address; readonly v4: Address } {
  return { v6: addressInSubnet(ula, SUBNET_RESERVED, 0, RESOLVER_ID), v4: makeV4(usableOfPool4(pool4).first - 1) };
}
