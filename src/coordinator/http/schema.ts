// The admin API's shapes: what the server checks, what the CLI and the dashboard parse, and what the OpenAPI document
// says. HTTP/JSON on a listener of its own; `Authorization: Bearer <DATA/admin.token>`; times are Unix milliseconds.
import { z } from "zod";
import { OFFERS_MAX, POLICY_MAX_BYTES } from "../../base/limits.ts";

const timeMs = z.number();
/** `agent:coder`, `user:ana@example.com`, `node:gw-1` */
const identityName = z.string().min(3).max(320);
const selector = z.string().min(3).max(320);
const tag = z.string().regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/);

/** RFC 9457, `application/problem+json`. */
export const problemSchema = z.object({
  type: z.string(), // "urn:wirebadge:error:TOKEN_SPENT"
  title: z.string(),
  status: z.number().int(),
  code: z.string(),
  detail: z.string(),
  hint: z.string().optional(),
  /** For POLICY_INVALID and POLICY_TESTS_FAILED. */
  diagnostics: z.array(z.lazy(() => diagnosticSchema)).optional(),
});
export type Problem = z.infer<typeof problemSchema>;

// ── tokens ─────────────────────────────────────────────────────────────────────────────────────────────────────────
/** POST /v1/tokens */
export const tokenCreateSchema = z.strictObject({
  as: identityName,
  sponsor: identityName.optional(),
  tags: z.array(tag).max(64).default([]),
  uses: z.number().int().min(1).max(100_000).default(1),
  expiresInMs: z
    .number()
    .int()
    .min(1_000)
    .max(366 * 86_400_000)
    .default(3_600_000),
  /** CIDRs, `host:PATTERN` or `service:NAME` that its sessions may offer besides what the policy's `via` says. */
  mayRoute: z.array(z.string().max(260)).max(OFFERS_MAX).default([]),
});
export type TokenCreate = z.input<typeof tokenCreateSchema>;

export const tokenSchema = z.object({
  id: z.string(), // "t_…"
  as: z.string(),
  sponsor: z.string().optional(),
  tags: z.array(z.string()),
  mayRoute: z.array(z.string()),
  uses: z.number().int(),
  usesLeft: z.number().int(),
  createdMs: timeMs,
  expiresMs: timeMs,
  revokedMs: timeMs.optional(),
  state: z.enum(["active", "spent", "expired", "revoked"]),
});
export type Token = z.infer<typeof tokenSchema>;

/** 201 of POST /v1/tokens: the only time that the secret is shown. */
export const tokenCreatedSchema = tokenSchema.extend({ token: z.string() });
/** GET /v1/tokens */
export const tokenListSchema = z.object({ tokens: z.array(tokenSchema) });
/**
 * 200 of DELETE /v1/tokens/:id. No more enrolments; sessions go on (`POST /v1/revocations` with `token:ID` ends those
 * too).
 */
export const tokenRevokedSchema = tokenSchema;

// ── policy ─────────────────────────────────────────────────────────────────────────────────────────────────────────
export const diagnosticSchema = z.object({
  severity: z.enum(["error", "warning"]),
  message: z.string(),
  /** 1-based, when the text is known. */
  line: z.number().int().optional(),
  column: z.number().int().optional(),
  /** JSON path: "grants[1].to". */
  path: z.string().optional(),
  hint: z.string().optional(),
});
export type Diagnostic = z.infer<typeof diagnosticSchema>;

/** One of the document's own tests. */
export const policyTestResultSchema = z.object({
  index: z.number().int(),
  from: z.string(),
  to: z.string(),
  expect: z.enum(["allow", "deny"]),
  got: z.enum(["allow", "deny"]),
  passed: z.boolean(),
  /** Why it came out so. */
  reason: z.string(),
});

/** POST /v1/policy/check: JSONC text. Answers 200 also for a bad document: see `ok`. */
export const policyCheckRequestSchema = z.strictObject({ text: z.string().max(POLICY_MAX_BYTES) });
export const policyCheckSchema = z.object({
  ok: z.boolean(),
  diagnostics: z.array(diagnosticSchema),
  tests: z.array(policyTestResultSchema),
});
export type PolicyCheck = z.infer<typeof policyCheckSchema>;

/** PUT /v1/policy. POLICY_INVALID, POLICY_TESTS_FAILED (both with `diagnostics`), POLICY_CONFLICT. */
export const policySetRequestSchema = z.strictObject({
  text: z.string().max(POLICY_MAX_BYTES),
  author: z.string().max(320).default("admin"),
  reason: z.string().max(1_024).default(""),
  /** Refused with POLICY_CONFLICT unless this is the current version. */
  expectVersion: z.number().int().optional(),
});
/** GET /v1/policy[?version=N], and 200 of PUT /v1/policy. Version 0 is the empty policy: nobody reaches anything. */
export const policySchema = z.object({
  version: z.number().int(),
  /** As written, comments kept. */
  text: z.string(),
  /** Canonical JSON. */
  policy: z.unknown(),
  author: z.string(),
  reason: z.string(),
  atMs: timeMs,
  /** Lines removed and added against the version before, as in a unified diff. */
  diff: z.string(),
});
export type PolicyVersion = z.infer<typeof policySchema>;

// ── identities and sessions ────────────────────────────────────────────────────────────────────────────────────────
export const refusedOfferSchema = z.object({ offer: z.string(), reason: z.string() });

export const sessionSchema = z.object({
  id: z.string(), // "s_…"
  identity: z.string(),
  sponsor: z.string().optional(),
  tags: z.array(z.string()),
  token: z.string(),
  addresses: z.array(z.string()),
  publicKey: z.string(),
  state: z.enum(["active", "revoked", "left"]),
  connected: z.boolean(),
  enrolledMs: timeMs,
  lastSeenMs: timeMs,
  /** End of the last lease handed out by this process; absent when none was. */
  leaseEndMs: timeMs.optional(),
  offers: z.object({ routes: z.array(z.string()), serves: z.array(z.string()) }),
  refusedOffers: z.array(refusedOfferSchema),
  /** What the policy lists it as a gateway for, but it doesn't offer itself. */
  missingOffers: z.array(z.string()),
  endpoints: z.array(z.string()),
  software: z.string(),
});
export type Session = z.infer<typeof sessionSchema>;
/** GET /v1/sessions[?all=true]: without `all`, active ones. */
export const sessionListSchema = z.object({ sessions: z.array(sessionSchema) });

export const identitySchema = z.object({
  name: z.string(), // "agent:coder"
  kind: z.enum(["user", "node", "agent"]),
  sponsor: z.string().optional(),
  tags: z.array(z.string()),
  createdMs: timeMs,
  removedMs: timeMs.optional(),
  activeSessions: z.number().int(),
});
export type Identity = z.infer<typeof identitySchema>;
/** GET /v1/identities */
export const identityListSchema = z.object({ identities: z.array(identitySchema) });
/** GET /v1/identities/:name */
export const identityShowSchema = identitySchema.extend({ sessions: z.array(sessionSchema) });

// ── revocation ─────────────────────────────────────────────────────────────────────────────────────────────────────
/**
 * POST /v1/revocations. Any selector: `agent:coder`, `session:s_…`, `token:t_…`, `tag:x`, `kind:agent`,
 * `sponsor:user:…`, `group:…`.
 */
export const revocationRequestSchema = z.strictObject({ selector, reason: z.string().max(1_024).default("") });
/** 200 of POST /v1/revocations and DELETE /v1/identities/:name. */
export const revocationSchema = z.object({
  selector: z.string(),
  /** Session ids ended by this call. */
  sessions: z.array(z.string()),
  /** Token ids that can't enrol any more. */
  tokens: z.array(z.string()),
  /** Connected peers that were told. */
  toldPeers: z.number().int(),
  atMs: timeMs,
});
export type Revocation = z.infer<typeof revocationSchema>;

// ── questions and records ──────────────────────────────────────────────────────────────────────────────────────────
/** GET /v1/can?from=agent:coder&dest=service:staging-db */
export const canQuerySchema = z.object({ from: selector, dest: z.string().min(1).max(512) });
export const canSchema = z.object({
  allowed: z.boolean(),
  /** ALLOWED_BY_RULE, NO_GRANT, NEVER, SESSION_REVOKED … */
  reason: z.string(),
  ruleId: z.string().optional(),
  policyVersion: z.number().int(),
  /** For people: one line each, with what would allow it, and why a gateway doesn't serve. */
  explanation: z.array(z.string()),
});
export type Can = z.infer<typeof canSchema>;

export const auditEntrySchema = z.object({
  seq: z.number().int(),
  atMs: timeMs,
  actor: z.string(), // "admin", "session:s_…", "coordinator"
  action: z.string(), // "token.create", "session.enrol", "offer.refuse", …
  subject: z.string(),
  details: z.record(z.string(), z.unknown()),
  /** SHA-256 in hexadecimal over the entry and `previous`. */
  previous: z.string(),
  hash: z.string(),
});
export type AuditEntry = z.infer<typeof auditEntrySchema>;
/** GET /v1/audit?after=SEQ&limit=N (at most 1,000) */
export const auditQuerySchema = z.object({
  after: z.coerce.number().int().min(0).default(0),
  limit: z.coerce.number().int().min(1).max(1_000).default(100),
});
export const auditSchema = z.object({
  entries: z.array(auditEntrySchema),
  /** The whole chain was recomputed; `brokenAt` is the first entry that doesn't fit. */
  verified: z.boolean(),
  brokenAt: z.number().int().optional(),
});

/** GET /v1/denials and GET /v1/flows ?session=&after=ID&limit=N: what peers reported. */
export const recordsQuerySchema = z.object({
  session: z.string().max(32).optional(),
  after: z.coerce.number().int().min(0).default(0),
  limit: z.coerce.number().int().min(1).max(1_000).default(100),
});
export const recordSchema = z.object({
  id: z.number().int(),
  reporter: z.string(),
  receivedMs: timeMs,
  record: z.record(z.string(), z.unknown()),
});
export const recordListSchema = z.object({ records: z.array(recordSchema) });

/** 201 of POST /v1/backups: a file in the data folder, to be moved away from there; the next one replaces it. */
export const backupSchema = z.object({
  file: z.string().regex(/^backup-[0-9a-z]+\.db$/),
  createdMs: timeMs,
  bytes: z.number().int(),
  auditHead: z.object({ seq: z.number().int(), hash: z.string() }),
});

/** GET /v1/health */
export const healthSchema = z.object({
  status: z.literal("ok"),
  network: z.object({ id: z.string(), name: z.string(), ula: z.string(), pool4: z.string() }),
  software: z.string(),
  url: z.string(),
  epoch: z.number().int(),
  policyVersion: z.number().int(),
  sessions: z.number().int(),
  connected: z.number().int(),
  probes: z.array(z.string()),
  /** Named drops and refusals since start. */
  counters: z.record(z.string(), z.number()),
  uptimeMs: z.number(),
});
export type Health = z.infer<typeof healthSchema>;
