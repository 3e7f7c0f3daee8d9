// Enrolment tokens: made by an admin for one identity, stored as a hash, spent by use. Making one makes its identity
// (and its sponsor) when there is none.
import { createHash } from "node:crypto";
import type { z } from "zod";
import { parsePrefix } from "../base/address.ts";
import { randomId } from "../base/base32.ts";
import { toHex } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { randomBytes } from "../base/random.ts";
import { formatJoinToken, SECRET_BYTES } from "../control/token.ts";
import type { Core } from "./core.ts";
import type { Token, tokenCreateSchema } from "./http/schema.ts";
import { parseIdentityName } from "./identity-name.ts";
import type { IdentityRow, TokenRow } from "./store/rows.ts";
import type { StoreTransaction } from "./store/store.ts";

export function hashSecret(secret: Uint8Array): string {
  return toHex(createHash("sha256").update("wirebadge token secret 1\0").update(secret).digest());
}

export function tokenView(row: TokenRow, sponsor: string | undefined, nowMs: number): Token {
  const { id, tags, mayRoute, uses, usesLeft, createdMs, expiresMs, revokedMs } = row;
  const ended = nowMs >= expiresMs ? "expired" : "active";
  const state = revokedMs !== undefined ? "revoked" : usesLeft === 0 ? "spent" : ended;
  return {
    id,
    as: row.identity,
    ...(sponsor !== undefined && { sponsor }),
    tags: [...tags],
    mayRoute: [...mayRoute],
    uses,
    usesLeft,
    createdMs,
    expiresMs,
    ...(revokedMs !== undefined && { revokedMs }),
    state,
  };
}

function checkMayRoute(offers: readonly string[]): void {
  for (const offer of offers) {
    if (offer.startsWith("host:") || offer.startsWith("service:") || parsePrefix(offer) !== undefined) continue;
    throw new WirebadgeError("CONFIG_INVALID", `${JSON.stringify(offer)} can't be routed`, {
      hint: "name a CIDR (10.20.0.0/16), host:PATTERN or service:NAME",
    });
  }
}

/** The identity as it stands afterwards; one that exists keeps its sponsor, and another one asked for is refused. */
async function ensureIdentity(
  tx: StoreTransaction,
  name: string,
  sponsor: string | undefined,
  tags: readonly string[],
  nowMs: number,
): Promise<IdentityRow> {
  const { kind } = parseIdentityName(name);
  const known = await tx.identity(name);
  if (known !== undefined && known.removedMs === undefined) {
    if (sponsor !== undefined && sponsor !== known.sponsor)
      throw new WirebadgeError("IDENTITY_MISMATCH", `${name} has another sponsor: ${known.sponsor ?? "none"}`, {
        hint: "leave --sponsor out, or choose another name",
      });
    if (tags.some((tag) => !known.tags.includes(tag)))
      throw new WirebadgeError("IDENTITY_MISMATCH", `${name} has other tags: ${known.tags.join(", ") || "none"}`, {
        hint: `leave --tag out; tags change by \`wirebadge identity remove ${name}\` and enrolling anew`,
      });
    return known;
  }
  const row: IdentityRow = { name, kind, sponsor, tags: [...tags], createdMs: nowMs, removedMs: undefined };
  await tx.putIdentity(row);
  return row;
}

/** The new token with its text, which is nowhere else. CONFIG_INVALID, IDENTITY_MISMATCH. */
export async function createToken(
  core: Core,
  request: z.output<typeof tokenCreateSchema>,
  actor: string,
): Promise<Token & { token: string }> {
  const { kind } = parseIdentityName(request.as);
  checkMayRoute(request.mayRoute);
  if (request.sponsor !== undefined) {
    if (kind === "user")
      throw new WirebadgeError("CONFIG_INVALID", `${request.as} is a user: users sponsor, nobody sponsors them`, {
        hint: "leave --sponsor out",
      });
    if (parseIdentityName(request.sponsor).kind !== "user")
      throw new WirebadgeError("CONFIG_INVALID", `${request.sponsor} can't sponsor`, {
        hint: "a sponsor is a user: user:ana@example.com",
      });
  }
  const nowMs = core.nowMs();
  const secret = randomBytes(core.random, SECRET_BYTES);
  const row: TokenRow = {
    id: randomId(core.random, "t"),
    secretHash: hashSecret(secret),
    identity: request.as,
    tags: [...new Set(request.tags)].sort(),
    mayRoute: [...new Set(request.mayRoute)],
    uses: request.uses,
    usesLeft: request.uses,
    createdMs: nowMs,
    expiresMs: nowMs + request.expiresInMs,
    revokedMs: undefined,
  };
  return await core.change(
    async (tx) => {
      const made: IdentityRow[] = [];
      if (request.sponsor !== undefined) made.push(await ensureIdentity(tx, request.sponsor, undefined, [], nowMs));
      made.push(await ensureIdentity(tx, request.as, request.sponsor, row.tags, nowMs));
      await tx.insertToken(row);
      const { uses, expiresMs, tags, mayRoute } = row;
      const details = { as: row.identity, sponsor: made.at(-1)?.sponsor, uses, expiresMs, tags, mayRoute };
      await tx.audit(nowMs, { actor, action: "token.create", subject: `token:${row.id}`, details });
      return made;
    },
    (made) => {
      for (const identity of made) core.world.identities.set(identity.name, identity);
      const coordinatorKey = core.keys.noise.publicKey;
      const token = formatJoinToken({ url: core.url, coordinatorKey, id: row.id, secret });
      return { ...tokenView(row, made.at(-1)?.sponsor, nowMs), token };
    },
  );
}

export async function listTokens(core: Core): Promise<Token[]> {
  const rows = await core.store.transaction((tx) => tx.tokens());
  const nowMs = core.nowMs();
  return rows.map((row) => tokenView(row, core.world.identities.get(row.identity)?.sponsor, nowMs));
}

/** No more enrolments by it; sessions that it enrolled go on. NOT_FOUND. */
export async function revokeToken(core: Core, id: string, actor: string): Promise<Token> {
  const nowMs = core.nowMs();
  return await core.change(
    async (tx) => {
      const row = await tx.token(id);
      if (row === undefined)
        throw new WirebadgeError("NOT_FOUND", `there is no token ${id}`, { hint: "see `wirebadge token list`" });
      if (row.revokedMs !== undefined) return row;
      await tx.revokeToken(id, nowMs);
      await tx.audit(nowMs, { actor, action: "token.revoke", subject: `token:${id}` });
      return { ...row, revokedMs: nowMs };
    },
    (row) => tokenView(row, core.world.identities.get(row.identity)?.sponsor, nowMs),
  );
}
