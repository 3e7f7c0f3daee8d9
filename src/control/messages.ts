// Records of the control channel. Most are JSON checked by these schemas; what is signed travels as the very bytes that
// were signed. On the wire a record is one byte that says which, and its body (see channel.ts for how it is split).
import { z } from "zod";
import { concatBytes, fromUtf8, utf8 } from "../base/bytes.ts";
import {
  BOOKMARK_MAX_CHARACTERS,
  OFFERS_MAX,
  RECORDS_PER_MESSAGE_MAX,
  REVOCATIONS_KEPT_MAX,
  SESSION_ENDPOINTS_MAX,
} from "../base/limits.ts";
import { sessionIdSchema } from "./netmap.ts";

const key = z.string().length(44); // 32 bytes in base64
const signature = z.string().length(88); // 64 bytes
const mac = z.string().length(24); // 16 bytes
const timeMs = z.number().min(0).max(Number.MAX_SAFE_INTEGER);
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const offer = z.string().min(1).max(260);
const shortText = z.string().max(64);
const address = z.string().max(45);

export const offersSchema = z.object({
  /** CIDRs, or `host:PATTERN`. */
  routes: z.array(offer).max(OFFERS_MAX),
  /** Service names; `*` is every service that the policy gives to this identity. */
  serves: z.array(offer).max(OFFERS_MAX),
});
export type Offers = z.infer<typeof offersSchema>;

const endpoints = z.array(z.string().max(53)).max(SESSION_ENDPOINTS_MAX);

/** What a peer has kept for a coordinator that may have forgotten it: see bookmark.ts and revocation.ts. */
export const keptSchema = z.object({
  bookmark: z.string().max(BOOKMARK_MAX_CHARACTERS).optional(),
  revocations: z.array(z.object({ session: sessionIdSchema, signature })).max(REVOCATIONS_KEPT_MAX),
});
export type Kept = z.infer<typeof keptSchema>;

/** As DenialRecord and FlowRecord of the filter, with addresses as text. */
const denialSchema = z.object({
  id: z.string().max(16),
  atMs: timeMs,
  hop: z.enum(["source", "destination"]),
  session: sessionIdSchema,
  source: address,
  destination: address,
  protocol: z.number().int().min(0).max(255),
  destinationPort: z.number().int().min(0).max(65_535),
  reason: shortText,
  ruleId: z.string().max(128).optional(),
  policyVersion: count,
  revision: count,
});
const flowSchema = z.object({
  session: sessionIdSchema,
  opener: z.enum(["remote", "local"]),
  source: address,
  destination: address,
  protocol: z.number().int().min(0).max(255),
  sourcePort: z.number().int().min(0).max(65_535),
  destinationPort: z.number().int().min(0).max(65_535),
  ruleId: z.string().max(128).optional(),
  revision: count,
  startedMs: timeMs,
  lastMs: timeMs,
  bytesIn: count,
  bytesOut: count,
});
export type DenialReport = z.infer<typeof denialSchema>;
export type FlowReport = z.infer<typeof flowSchema>;

const helloSchema = z.object({
  type: z.literal("hello"),
  version: z.number().int().min(0).max(255),
  signKey: key,
  /** Ed25519 over (context ‖ handshake hash). */
  signature,
  /** "wirebadge 0.1.0", for people who read session lists. */
  software: shortText,
});

/** What a peer sends. */
export const peerMessageSchema = z.discriminatedUnion("type", [
  helloSchema,
  z.object({
    type: z.literal("enroll"),
    token: z.string().regex(/^t_[0-9a-hjkmnp-tv-z]{16}$/),
    secret: key,
    publicKey: key,
    /** MAC under DH(WireGuard private key, challenge key) over (context ‖ handshake hash ‖ both public keys). */
    proof: mac,
    offers: offersSchema,
    endpoints,
    kept: keptSchema.optional(),
  }),
  z.object({
    type: z.literal("resume"),
    session: sessionIdSchema,
    publicKey: key,
    proof: mac,
    offers: offersSchema,
    endpoints,
    kept: keptSchema.optional(),
  }),
  z.object({ type: z.literal("offers"), ...offersSchema.shape }),
  z.object({ type: z.literal("endpoints"), endpoints }),
  /** Asks the coordinator to tell that peer to try our endpoints now. */
  z.object({ type: z.literal("punch"), session: sessionIdSchema }),
  z.object({ type: z.literal("renew") }),
  /** Asks for the whole netmap: a delta didn't fit. */
  z.object({ type: z.literal("full") }),
  z.object({ type: z.literal("ping"), n: count }),
  z.object({ type: z.literal("denials"), records: z.array(denialSchema).max(RECORDS_PER_MESSAGE_MAX) }),
  z.object({ type: z.literal("flows"), records: z.array(flowSchema).max(RECORDS_PER_MESSAGE_MAX) }),
  z.object({ type: z.literal("leave") }),
]);
export type PeerMessage = z.infer<typeof peerMessageSchema>;
export type PeerMessageOf<T extends PeerMessage["type"]> = Extract<PeerMessage, { type: T }>;

/** What the coordinator sends as JSON. */
export const coordinatorMessageSchema = z.discriminatedUnion("type", [
  /** Its first record: the ephemeral X25519 key that a WireGuard key's possession is proved against. */
  z.object({ type: z.literal("challenge"), key }),
  z.object({
    type: z.literal("welcome"),
    session: sessionIdSchema,
    identity: z.string().max(320),
    /** Verifies netmaps and leases. */
    signKey: key,
    epoch: count,
    timeMs,
    leaseMs: z.number().int().positive(),
    probe: z.object({ id: z.string().length(12), key }),
    software: shortText,
    /** To be kept and shown at the next connection. */
    bookmark: z.string().max(BOOKMARK_MAX_CHARACTERS).optional(),
  }),
  z.object({
    type: z.literal("pong"),
    n: count,
    timeMs,
    bookmark: z.string().max(BOOKMARK_MAX_CHARACTERS).optional(),
  }),
  z.object({ type: z.literal("punch"), session: sessionIdSchema }),
  z.object({ type: z.literal("left") }),
  z.object({
    type: z.literal("error"),
    code: shortText,
    message: z.string().max(1_024),
    hint: z.string().max(1_024).optional(),
  }),
]);
export type CoordinatorMessage = z.infer<typeof coordinatorMessageSchema>;
export type Welcome = Extract<CoordinatorMessage, { type: "welcome" }>;

export const RECORD_JSON = 1;
export const RECORD_NETMAP = 2; // signature (64 bytes) ‖ bytes: see netmap-codec.ts
export const RECORD_DELTA = 3;
export const RECORD_LEASE = 4; // see lease.ts

/** What a record from the coordinator holds. */
export type CoordinatorRecord =
  | { readonly kind: "message"; readonly message: CoordinatorMessage }
  | { readonly kind: "netmap" | "delta" | "lease"; readonly bytes: Uint8Array };

/** Named reasons for refusing a whole record. */
export type RecordDrop = "record-empty" | "record-unknown-kind" | "record-not-json" | "record-bad-shape";

export function encodeJsonRecord(message: PeerMessage | CoordinatorMessage): Uint8Array {
  return concatBytes(Uint8Array.of(RECORD_JSON), utf8(JSON.stringify(message)));
}

export function encodeBytesRecord(
  kind: typeof RECORD_NETMAP | typeof RECORD_DELTA | typeof RECORD_LEASE,
  bytes: Uint8Array,
): Uint8Array {
  return concatBytes(Uint8Array.of(kind), bytes);
}

function parseJson(bytes: Uint8Array): { readonly value: unknown } | undefined {
  const text = fromUtf8(bytes);
  if (text === undefined) return undefined;
  try {
    return { value: JSON.parse(text) as unknown };
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

export function decodePeerRecord(record: Uint8Array): PeerMessage | RecordDrop {
  if (record.length === 0) return "record-empty";
  if (record[0] !== RECORD_JSON) return "record-unknown-kind";
  const json = parseJson(record.subarray(1));
  if (json === undefined) return "record-not-json";
  const parsed = peerMessageSchema.safeParse(json.value);
  return parsed.success ? parsed.data : "record-bad-shape";
}

export function decodeCoordinatorRecord(record: Uint8Array): CoordinatorRecord | RecordDrop {
  if (record.length === 0) return "record-empty";
  const bytes = record.subarray(1);
  switch (record[0]) {
    case RECORD_NETMAP:
      return { kind: "netmap", bytes };
    case RECORD_DELTA:
      return { kind: "delta", bytes };
    case RECORD_LEASE:
      return { kind: "lease", bytes };
    case RECORD_JSON: {
      const json = parseJson(bytes);
      if (json === undefined) return "record-not-json";
      const parsed = coordinatorMessageSchema.safeParse(json.value);
      return parsed.success ? { kind: "message", message: parsed.data } : "record-bad-shape";
    }
    default:
      return "record-unknown-kind";
  }
}
