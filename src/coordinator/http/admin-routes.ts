// The admin API's endpoints. Each is its schemas (schema.ts) and one call; what it means is decided elsewhere.
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { WirebadgeError } from "../../base/errors.ts";
import { verifyAuditChain } from "../audit.ts";
import type { ControlDesk } from "../control-desk.ts";
import type { Core } from "../core.ts";
import type { Leases } from "../leases.ts";
import type { Netmaps } from "../netmaps.ts";
import type { Policies } from "../policies.ts";
import type { PeerRecords } from "../records.ts";
import { type RevocationParts, revoke } from "../revocation.ts";
import type { Roster } from "../roster.ts";
import type { IdentityRow, SessionRow } from "../store/rows.ts";
import { createToken, listTokens, revokeToken } from "../tokens.ts";
import * as schema from "./schema.ts";

export interface AdminParts {
  readonly core: Core;
  readonly desk: ControlDesk;
  readonly netmaps: Netmaps;
  readonly leases: Leases;
  readonly policies: Policies;
  readonly roster: Roster;
  readonly records: PeerRecords;
  readonly startedMs: number;
  /** Into the data folder. */
  readonly backup: () => Promise<z.infer<typeof schema.backupSchema>>;
}

const ACTOR = "admin";
const json = <T extends z.ZodType>(shape: T) => ({ content: { "application/json": { schema: shape } } });
const problem = { description: "why not", content: { "application/problem+json": { schema: schema.problemSchema } } };
const ok = <T extends z.ZodType>(description: string, shape: T) =>
  ({ 200: { description, ...json(shape) }, default: problem }) as const;

const security = [{ bearer: [] }];
const idParam = z.object({ id: z.string().max(64) });
const nameParam = z.object({ name: z.string().max(320) });

const routes = {
  createToken: createRoute({
    method: "post",
    path: "/v1/tokens",
    security,
    request: { body: { required: true, ...json(schema.tokenCreateSchema) } },
    responses: {
      201: { description: "the token, shown this once", ...json(schema.tokenCreatedSchema) },
      default: problem,
    },
  }),
  listTokens: createRoute({
    method: "get",
    path: "/v1/tokens",
    security,
    responses: ok("all tokens, without secrets", schema.tokenListSchema),
  }),
  revokeToken: createRoute({
    method: "delete",
    path: "/v1/tokens/{id}",
    security,
    request: { params: idParam },
    responses: ok("the token, revoked", schema.tokenRevokedSchema),
  }),
  getPolicy: createRoute({
    method: "get",
    path: "/v1/policy",
    security,
    request: { query: z.object({ version: z.coerce.number().int().min(0).optional() }) },
    responses: ok("the policy in force, or that version", schema.policySchema),
  }),
  setPolicy: createRoute({
    method: "put",
    path: "/v1/policy",
    security,
    request: { body: { required: true, ...json(schema.policySetRequestSchema) } },
    responses: ok("the new version", schema.policySchema),
  }),
  checkPolicy: createRoute({
    method: "post",
    path: "/v1/policy/check",
    security,
    request: { body: { required: true, ...json(schema.policyCheckRequestSchema) } },
    responses: ok("what is wrong with it, and its own tests", schema.policyCheckSchema),
  }),
  listIdentities: createRoute({
    method: "get",
    path: "/v1/identities",
    security,
    responses: ok("all identities", schema.identityListSchema),
  }),
  showIdentity: createRoute({
    method: "get",
    path: "/v1/identities/{name}",
    security,
    request: { params: nameParam },
    responses: ok("one identity with its sessions", schema.identityShowSchema),
  }),
  removeIdentity: createRoute({
    method: "delete",
    path: "/v1/identities/{name}",
    security,
    request: { params: nameParam },
    responses: ok("what ended with it", schema.revocationSchema),
  }),
  listSessions: createRoute({
    method: "get",
    path: "/v1/sessions",
    security,
    request: { query: z.object({ all: z.enum(["true", "false"]).optional() }) },
    responses: ok("active sessions; with all=true ended ones too", schema.sessionListSchema),
  }),
  makeBackup: createRoute({
    method: "post",
    path: "/v1/backups",
    security,
    responses: {
      201: { description: "a file in the data folder", ...json(schema.backupSchema) },
      default: problem,
    },
  }),
  revoke: createRoute({
    method: "post",
    path: "/v1/revocations",
    security,
    request: { body: { required: true, ...json(schema.revocationRequestSchema) } },
    responses: ok("what ended", schema.revocationSchema),
  }),
  can: createRoute({
    method: "get",
    path: "/v1/can",
    security,
    request: { query: schema.canQuerySchema },
    responses: ok("may it, and why", schema.canSchema),
  }),
  audit: createRoute({
    method: "get",
    path: "/v1/audit",
    security,
    request: { query: schema.auditQuerySchema },
    responses: ok("the audit log, oldest first", schema.auditSchema),
  }),
  denials: createRoute({
    method: "get",
    path: "/v1/denials",
    security,
    request: { query: schema.recordsQuerySchema },
    responses: ok("denials as peers reported them", schema.recordListSchema),
  }),
  flows: createRoute({
    method: "get",
    path: "/v1/flows",
    security,
    request: { query: schema.recordsQuerySchema },
    responses: ok("flows as peers reported them", schema.recordListSchema),
  }),
  health: createRoute({
    method: "get",
    path: "/v1/health",
    security,
    responses: ok("alive, and how it is", schema.healthSchema),
  }),
};

export function addAdminRoutes(app: OpenAPIHono, parts: AdminParts): void {
  app.openAPIRegistry.registerComponent("securitySchemes", "bearer", { type: "http", scheme: "bearer" });
  addTokenRoutes(app, parts);
  addPolicyRoutes(app, parts);
  addIdentityRoutes(app, parts);
  addRecordRoutes(app, parts);
}

function addTokenRoutes(app: OpenAPIHono, { core, netmaps, roster }: AdminParts): void {
  app.openapi(routes.createToken, async (c) => {
    const token = await createToken(core, c.req.valid("json"), ACTOR);
    if (roster.know(token.as) === "all") netmaps.refreshAll(); // a node counts in `via` lists before it is there
    return c.json(token, 201);
  });
  app.openapi(routes.listTokens, async (c) => c.json({ tokens: await listTokens(core) }, 200));
  app.openapi(routes.revokeToken, async (c) => c.json(await revokeToken(core, c.req.valid("param").id, ACTOR), 200));
}

function addPolicyRoutes(app: OpenAPIHono, { policies, netmaps }: AdminParts): void {
  app.openapi(routes.getPolicy, async (c) => c.json(await policies.get(c.req.valid("query").version), 200));
  app.openapi(routes.checkPolicy, (c) => c.json(policies.check(c.req.valid("json").text), 200));
  app.openapi(routes.setPolicy, async (c) => {
    const version = await policies.set(c.req.valid("json"), () => netmaps.refreshAll());
    return c.json(version, 200);
  });
  app.openapi(routes.can, (c) => {
    const { from, dest } = c.req.valid("query");
    return c.json(policies.can(from, dest), 200);
  });
}

function addIdentityRoutes(app: OpenAPIHono, parts: AdminParts): void {
  const { core } = parts;
  const revocation: RevocationParts = parts;
  app.openapi(routes.listIdentities, (c) => {
    const identities = [...core.world.identities.values()].map((row) => identityView(parts, row));
    return c.json({ identities: identities.sort((a, b) => (a.name < b.name ? -1 : 1)) }, 200);
  });
  app.openapi(routes.showIdentity, async (c) => {
    const { name } = c.req.valid("param");
    const row = core.world.identities.get(name);
    if (row === undefined)
      throw new WirebadgeError("NOT_FOUND", `there is no identity ${name}`, { hint: "see `wirebadge identity list`" });
    const rows = (await core.store.transaction((tx) => tx.sessions())).filter(({ identity }) => identity === name);
    return c.json({ ...identityView(parts, row), sessions: rows.map((session) => sessionView(parts, session)) }, 200);
  });
  app.openapi(routes.removeIdentity, async (c) => {
    const { name } = c.req.valid("param");
    if (!core.world.identities.has(name))
      throw new WirebadgeError("NOT_FOUND", `there is no identity ${name}`, { hint: "see `wirebadge identity list`" });
    return c.json(await revoke(revocation, name, "identity removed", ACTOR, true), 200);
  });
  app.openapi(routes.listSessions, async (c) => {
    const all = c.req.valid("query").all === "true";
    const rows = all ? await core.store.transaction((tx) => tx.sessions()) : [...core.world.sessions.values()];
    return c.json({ sessions: rows.map((session) => sessionView(parts, session)) }, 200);
  });
  app.openapi(routes.revoke, async (c) => {
    const { selector, reason } = c.req.valid("json");
    return c.json(await revoke(revocation, selector, reason, ACTOR), 200);
  });
}

function addRecordRoutes(app: OpenAPIHono, { core, records, netmaps, startedMs, backup }: AdminParts): void {
  app.openapi(routes.audit, async (c) => {
    const { after, limit } = c.req.valid("query");
    const entries = await core.store.transaction((tx) => tx.auditEntries(after, limit));
    const brokenAt = await verifyAuditChain(core.store);
    return c.json({ entries, verified: brokenAt === undefined, ...(brokenAt !== undefined && { brokenAt }) }, 200);
  });
  app.openapi(routes.denials, (c) => {
    const { after, limit, session } = c.req.valid("query");
    return c.json({ records: records.list("denial", after, limit, session) }, 200);
  });
  app.openapi(routes.flows, (c) => {
    const { after, limit, session } = c.req.valid("query");
    return c.json({ records: records.list("flow", after, limit, session) }, 200);
  });
  app.openapi(routes.makeBackup, async (c) => c.json(await backup(), 201));
  app.openapi(routes.health, (c) => {
    const { world } = core;
    const { id, name, ula, pool4 } = world.network;
    return c.json(
      {
        status: "ok" as const,
        network: { id, name, ula, pool4 },
        software: core.software,
        url: core.url,
        epoch: world.epoch,
        policyVersion: world.policy.version,
        sessions: world.sessions.size,
        connected: netmaps.connected,
        probes: [...core.probes],
        counters: core.counters.toObject(),
        uptimeMs: Math.round(core.clock.nowMs() - startedMs),
      },
      200,
    );
  });
}

function identityView({ core }: AdminParts, row: IdentityRow): schema.Identity {
  let activeSessions = 0;
  for (const session of core.world.sessions.values()) if (session.identity === row.name) activeSessions++;
  return {
    name: row.name,
    kind: row.kind,
    ...(row.sponsor !== undefined && { sponsor: row.sponsor }),
    tags: [...row.tags],
    createdMs: row.createdMs,
    ...(row.removedMs !== undefined && { removedMs: row.removedMs }),
    activeSessions,
  };
}

function sessionView({ core, desk, netmaps, leases, roster }: AdminParts, row: SessionRow): schema.Session {
  const sponsor = core.world.sponsorOf(row);
  const leaseEnd = leases.endMs(row.id);
  const compiled = row.state === "active" ? roster.compile(row.id, core.nowMs()) : undefined;
  return {
    id: row.id,
    identity: row.identity,
    ...(sponsor !== undefined && { sponsor }),
    tags: core.world.tagsOf(row),
    token: row.token,
    addresses: [...row.addresses],
    publicKey: row.publicKey,
    state: row.state,
    connected: netmaps.connection(row.id) !== undefined,
    enrolledMs: row.enrolledMs,
    lastSeenMs: desk.lastSeenMs(row),
    ...(leaseEnd !== undefined && { leaseEndMs: leaseEnd }),
    offers: { routes: [...row.offeredRoutes], serves: [...row.offeredServes] },
    refusedOffers: [...(compiled?.refusedOffers ?? [])],
    missingOffers: [...(compiled?.missingOffers ?? [])],
    endpoints: [...(core.world.endpoints.get(row.id) ?? [])],
    software: row.software,
  };
}
