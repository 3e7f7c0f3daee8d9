// The plain input of evaluation and compilation: who exists, who is there now, and what each session offers to carry.
import type { Address, Prefix } from "../base/address.ts";
import type { IdentityKind } from "./selector.ts";

export interface WorldIdentity {
  /** "agent:coder" */
  readonly name: string;
  readonly kind: IdentityKind;
  /** "user:ana@example.com" */
  readonly sponsor?: string | undefined;
  readonly tags: readonly string[];
}

export interface WorldSession {
  readonly id: string;
  readonly identity: string;
  readonly kind: "wirebadge" | "stock";
  /** Overlay: IPv6 first, then IPv4 if it has one. */
  readonly addresses: readonly Address[];
  /** The enrolment token's id. */
  readonly token?: string | undefined;
  /** CIDRs and `host:PATTERN`, as the peer says. */
  readonly offeredRoutes: readonly string[];
  /** Service names, `*` for every one that the policy gives it, as the peer says. */
  readonly offeredServices: readonly string[];
  /** CIDRs, `host:PATTERN` and `service:NAME` that its token allows besides the policy's `via`. */
  readonly mayRoute: readonly string[];
  /** The overlay address of each service that it serves; one without an address yet is served by nobody. */
  readonly serviceAddresses: ReadonlyMap<string, Address>;
}

/** The overlay's own ranges: no route may lie in them. */
export interface WorldNetwork {
  readonly ula: Prefix;
  readonly pool4: Prefix;
}

export interface World {
  readonly network: WorldNetwork;
  readonly identities: ReadonlyMap<string, WorldIdentity>;
  readonly sessions: ReadonlyMap<string, WorldSession>;
}

/** The TCP port of a gateway's overlay IPv6 address at which it is told names to dial. */
export const NAME_DIAL_PORT = 51_822;
