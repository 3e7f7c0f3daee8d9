// The netmap: all that one peer is told, as a flat map of entries. A delta sets and removes entries by key, so that a
// delta and the full map give equal state by construction. Signed by the coordinator as bytes; schemas check it on
// arrival.
import { z } from "zod";
import { parseAddress, parsePrefix } from "../base/address.ts";
import { fromBase64 } from "../base/bytes.ts";

export const SESSION_ID = /^s_[0-9a-hjkmnp-tv-z]{16}$/; // 80 random bits in Crockford base32
export const sessionIdSchema = z.string().regex(SESSION_ID);
// What doesn't parse is refused here, by the entry's name: a rule left out later, unseen, might be one that closes.
const keySchema = z
  .string()
  .length(44)
  .refine((text) => fromBase64(text)?.length === 32, "no key of 32 bytes in base64");
const prefixSchema = z
  .string()
  .max(49)
  .refine((text) => parsePrefix(text) !== undefined, "no prefix");
const addressSchema = z
  .string()
  .max(45)
  .refine((text) => parseAddress(text) !== undefined, "no address");
const endpointSchema = z.string().max(53);
const protocolSchema = z.enum(["tcp", "udp", "icmp", "any"]);
const portSchema = z.number().int().min(0).max(65_535);
const portsSchema = z
  .array(
    z
      .tuple([portSchema, portSchema])
      .refine(([low, high]) => low <= high, "a range of ports that ends before it begins"),
  )
  .max(256);

export const networkEntrySchema = z.object({
  id: z.string(), // "n_…"
  name: z.string(), // a DNS label
  ula: prefixSchema, // the network's IPv6 /48
  pool4: prefixSchema, // the network's IPv4 pool
  mtuBytes: z.number().int(),
  /** UDP endpoints of the coordinator's probe, as configured (HOST:PORT); empty when it has none. */
  probes: z.array(z.string()),
});

/** One session, as another peer or itself sees it. */
export const sessionEntrySchema = z.object({
  session: sessionIdSchema,
  identity: z.string(), // "agent:coder"
  sponsor: z.string().optional(), // "user:ana@example.com"
  tags: z.array(z.string()),
  publicKey: keySchema, // X25519 WireGuard key
  signKey: keySchema, // Ed25519 session key
  addresses: z.array(addressSchema), // overlay: IPv6 first, then IPv4 if it has one
  kind: z.enum(["wirebadge", "stock"]),
});

export const peerEntrySchema = sessionEntrySchema.extend({
  /** Inner sources it may speak for, and what is sent to it: its addresses, service addresses, accepted routes. */
  prefixes: z.array(prefixSchema),
  /** Outer endpoints to try: local ones as reported, public ones as probed. */
  endpoints: z.array(endpointSchema),
  presharedKey: keySchema.optional(),
  /** Stock peers only (they can't show a lease): Unix ms by the coordinator's clock. */
  leaseEndMs: z.number().optional(),
});

/** Strict: a condition that this version doesn't know would make a grant wider than it was written. */
export const addressRuleSchema = z.strictObject({
  id: z.string(),
  action: z.enum(["allow", "deny"]),
  sessions: z.array(sessionIdSchema),
  to: prefixSchema,
  protocol: protocolSchema,
  ports: portsSchema,
  untilMs: z.number().optional(),
});

export const hostRuleSchema = addressRuleSchema.omit({ to: true }).extend({ pattern: z.string() });

/** A service this peer may reach, or one that is discoverable. */
export const serviceEntrySchema = z.object({
  name: z.string(),
  protocol: protocolSchema,
  ports: portsSchema,
  /** One overlay address for each gateway that offers it. */
  gateways: z.array(z.object({ session: sessionIdSchema, address: addressSchema })),
  discoverable: z.boolean(),
  /** What would allow it, for a discoverable service that this session has no grant for. */
  denied: z
    .object({ reason: z.enum(["NO_GRANT", "NEVER"]), ruleId: z.string().optional(), hint: z.string() })
    .optional(),
});

/** For a gateway: a service it is accepted to serve, at the overlay address given to it. */
export const serveEntrySchema = z.object({
  name: z.string(),
  address: addressSchema,
  /** IP address or DNS name behind the gateway, as in the policy's `at`. */
  host: z.string(),
  protocol: protocolSchema,
  ports: portsSchema,
});

/** For a gateway: a CIDR or host pattern it is accepted to route. */
export const routeEntrySchema = z.object({ destination: z.string() });

/** For everybody granted it: which gateways resolve and dial names that match. */
export const hostRouteEntrySchema = z.object({ pattern: z.string(), gateways: z.array(sessionIdSchema) });

/** An offer of this peer that was refused, with the reason. */
export const refusedOfferSchema = z.object({ offer: z.string(), reason: z.string() });

/** `signature`: see revocation.ts. */
export const revokedEntrySchema = z.object({
  session: sessionIdSchema,
  untilMs: z.number(),
  signature: z.string().length(88).optional(),
});

/** Key prefixes and what stands under each. */
export const ENTRY_SCHEMAS = {
  network: networkEntrySchema, // "network"
  policy: z.object({ version: z.number().int() }), // "policy"
  self: sessionEntrySchema.extend({ leaseMs: z.number() }), // "self"
  peer: peerEntrySchema, // "peer/SESSION"
  in: addressRuleSchema, // "in/UNIQUE"
  out: addressRuleSchema, // "out/UNIQUE"
  "in-host": hostRuleSchema, // "in-host/UNIQUE"
  "out-host": hostRuleSchema, // "out-host/UNIQUE"
  service: serviceEntrySchema, // "service/NAME"
  serve: serveEntrySchema, // "serve/NAME"
  route: routeEntrySchema, // "route/DESTINATION"
  "host-route": hostRouteEntrySchema, // "host-route/PATTERN"
  "refused-offer": refusedOfferSchema, // "refused-offer/OFFER"
  revoked: revokedEntrySchema, // "revoked/SESSION"
} as const;

export type NetworkEntry = z.infer<typeof networkEntrySchema>;
export type SessionEntry = z.infer<typeof sessionEntrySchema>;
export type SelfEntry = z.infer<typeof ENTRY_SCHEMAS.self>;
export type PeerEntry = z.infer<typeof peerEntrySchema>;
export type AddressRuleEntry = z.infer<typeof addressRuleSchema>;
export type HostRuleEntry = z.infer<typeof hostRuleSchema>;
export type ServiceEntry = z.infer<typeof serviceEntrySchema>;
export type ServeEntry = z.infer<typeof serveEntrySchema>;
export type RouteEntry = z.infer<typeof routeEntrySchema>;
export type HostRouteEntry = z.infer<typeof hostRouteEntrySchema>;
export type RefusedOffer = z.infer<typeof refusedOfferSchema>;
export type RevokedEntry = z.infer<typeof revokedEntrySchema>;

/** Entries by key; values are JSON. The one form that is stored, sent, signed and compared. */
export type NetmapEntries = Record<string, unknown>;

export const netmapSchema = z.object({
  epoch: z.number().int().nonnegative(),
  revision: z.number().int().nonnegative(),
  entries: z.record(z.string(), z.unknown()),
});
export type Netmap = z.infer<typeof netmapSchema>;

export const netmapDeltaSchema = z.object({
  epoch: z.number().int().nonnegative(),
  fromRevision: z.number().int().nonnegative(),
  revision: z.number().int().nonnegative(),
  set: z.record(z.string(), z.unknown()),
  remove: z.array(z.string()),
});
export type NetmapDelta = z.infer<typeof netmapDeltaSchema>;

/** The netmap with every entry checked and sorted into its kind: what the engine and the peer use. */
export interface NetmapView {
  readonly epoch: number;
  readonly revision: number;
  readonly network: NetworkEntry;
  readonly policyVersion: number;
  readonly self: SelfEntry;
  readonly peers: readonly PeerEntry[];
  readonly inbound: readonly AddressRuleEntry[];
  readonly outbound: readonly AddressRuleEntry[];
  readonly inboundHosts: readonly HostRuleEntry[];
  readonly outboundHosts: readonly HostRuleEntry[];
  readonly services: readonly ServiceEntry[];
  readonly serves: readonly ServeEntry[];
  readonly routes: readonly RouteEntry[];
  readonly hostRoutes: readonly HostRouteEntry[];
  readonly refusedOffers: readonly RefusedOffer[];
  readonly revoked: readonly RevokedEntry[];
}
