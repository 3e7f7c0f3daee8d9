// How often each verdict was given, by its reason.
import type { VerdictReason } from "./contract.ts";

export type VerdictCounts = Record<VerdictReason, number>;

export function zeroCounts(): VerdictCounts {
  return {
    ALLOWED_BY_RULE: 0,
    ALLOWED_BY_FLOW: 0,
    ALLOW_ALL: 0,
    NO_GRANT: 0,
    NEVER: 0,
    LEASE_ENDED: 0,
    NO_LEASE: 0,
    SESSION_REVOKED: 0,
    NOT_OUR_ADDRESS: 0,
    FLOW_TABLE_FULL: 0,
    FRAGMENT_WITHOUT_FIRST: 0,
    ICMP_WITHOUT_FLOW: 0,
    DIAL_REFUSED: 0,
    AGAINST_FLOW: 0,
  };
}
