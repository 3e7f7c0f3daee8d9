// ICMP and ICMPv6: RFC 792, RFC 1812 §4.3, RFC 4443. Which types are errors, and the building of messages.

export const ICMP_ECHO_REPLY = 0;
export const ICMP_UNREACHABLE = 3;
export const ICMP_ECHO_REQUEST = 8;
export const ICMP_TIME_EXCEEDED = 11;
export const ICMP_CODE_HOST = 1;
export const ICMP_CODE_PORT = 3;
export const ICMP_CODE_FRAGMENTATION_NEEDED = 4;
export const ICMP_CODE_PROHIBITED = 13; // RFC 1812 §5.2.7.1

export const ICMPV6_UNREACHABLE = 1;
export const ICMPV6_TOO_BIG = 2;
export const ICMPV6_ECHO_REQUEST = 128;
export const ICMPV6_ECHO_REPLY = 129;
export const ICMPV6_CODE_PROHIBITED = 1;
export const ICMPV6_CODE_ADDRESS = 3;
export const ICMPV6_CODE_PORT = 4;

/** True for the types that quote the packet they are about. */
export function isIcmpError(version: 4 | 6, type: number): boolean {
  if (version === 6) return type >= 1 && type <= 4;
  return type === 3 || type === 4 || type === 5 || type === 11 || type === 12;
}

export function isIcmpEcho(version: 4 | 6, type: number): boolean {
  if (version === 6) return type === ICMPV6_ECHO_REQUEST || type === ICMPV6_ECHO_REPLY;
  return type === ICMP_ECHO_REQUEST || type === ICMP_ECHO_REPLY;
}
