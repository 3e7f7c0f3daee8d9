// How a peer comes in: with a token (enrolment) or with the keys of a session that exists (resumption). Both keys were
// proved before this is reached. Each refusal has a code of the catalogue.
import { timingSafeEqual } from "node:crypto";
import { randomId } from "../base/base32.ts";
import { fromBase64 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import type { PeerMessageOf } from "../control/messages.ts";
import { allocateAddresses } from "./addresses.ts";
import type { Core } from "./core.ts";
import type { SessionRow, TokenRow } from "./store/rows.ts";
import type { StoreTransaction } from "./store/store.ts";
import { hashSecret } from "./tokens.ts";

/** Both keys in base64, as proved. */
export interface ProvedKeys {
  readonly signKey: string;
  readonly publicKey: string;
  readonly software: string;
}

export interface Admission {
  readonly session: SessionRow;
  /** False when the session existed before. */
  readonly fresh: boolean;
}

function refuse(
  code: "TOKEN_INVALID" | "TOKEN_SPENT" | "TOKEN_EXPIRED" | "TOKEN_REVOKED",
  message: string,
): WirebadgeError {
  return new WirebadgeError(code, message, { hint: "ask for a new one: `wirebadge token create`" });
}

function ended(session: SessionRow): WirebadgeError {
  const how = session.state === "left" ? "has left" : "was revoked";
  return new WirebadgeError("SESSION_REVOKED", `session ${session.id} ${how}`, {
    hint: "join anew with another token and an empty state folder",
  });
}

function checkSecret(token: TokenRow, secretText: string): void {
  const secret = fromBase64(secretText) ?? new Uint8Array(0);
  const [given, kept] = [Buffer.from(hashSecret(secret), "hex"), Buffer.from(token.secretHash, "hex")];
  if (!timingSafeEqual(given, kept)) throw refuse("TOKEN_INVALID", "the token's secret is wrong");
}

/**
 * The session for a token and two keys. The same token with the same two keys gives the same session again, also when
 * it is spent or expired by then: an answer that got lost costs nothing.
 */
export async function enroll(
  core: Core,
  tx: StoreTransaction,
  request: PeerMessageOf<"enroll">,
  keys: ProvedKeys,
): Promise<Admission> {
  const nowMs = core.nowMs();
  const token = await tx.token(request.token);
  if (token === undefined)
    throw new WirebadgeError("TOKEN_OTHER_NETWORK", "this network doesn't know that token", {
      hint: "it was made by another network, or before this one's data folder was made anew: ask for a new one",
    });
  checkSecret(token, request.secret);
  if (token.revokedMs !== undefined) throw refuse("TOKEN_REVOKED", "the token was revoked");
  const known = await tx.sessionByKeys(keys.signKey, keys.publicKey);
  if (known !== undefined) {
    if (known.signKey !== keys.signKey || known.publicKey !== keys.publicKey || known.token !== token.id)
      throw new WirebadgeError("IDENTITY_MISMATCH", "one of these keys belongs to another session", {
        hint: "join with an empty state folder, so that new keys are made",
      });
    if (known.state !== "active") throw ended(known);
    return { session: known, fresh: false };
  }
  if (nowMs >= token.expiresMs) throw refuse("TOKEN_EXPIRED", "the token has expired");
  const identity = await tx.identity(token.identity);
  if (identity === undefined || identity.removedMs !== undefined)
    throw refuse("TOKEN_REVOKED", `${token.identity} was removed`);
  if (!(await tx.spendToken(token.id))) throw refuse("TOKEN_SPENT", "the token has been used up");
  const session: SessionRow = {
    id: randomId(core.random, "s"),
    identity: identity.name,
    token: token.id,
    mayRoute: token.mayRoute,
    signKey: keys.signKey,
    publicKey: keys.publicKey,
    state: "active",
    enrolledMs: nowMs,
    endedMs: undefined,
    lastSeenMs: nowMs,
    offeredRoutes: request.offers.routes,
    offeredServes: request.offers.serves,
    software: keys.software,
    addresses: await allocateAddresses(tx, core.world.network, core.random, identity.name, identity.kind, nowMs),
  };
  await tx.insertSession(session);
  const { addresses, publicKey } = session;
  const details = { identity: identity.name, token: token.id, addresses, publicKey };
  await tx.audit(nowMs, {
    actor: `token:${token.id}`,
    action: "session.enrol",
    subject: `session:${session.id}`,
    details,
  });
  return { session, fresh: true };
}

export async function resume(
  _core: Core,
  tx: StoreTransaction,
  request: PeerMessageOf<"resume">,
  keys: ProvedKeys,
): Promise<Admission> {
  const session = await tx.session(request.session);
  if (session === undefined)
    throw new WirebadgeError("NOT_FOUND", "this network doesn't know that session", {
      hint: "its data folder was made anew or restored: join again with a token and an empty state folder",
    });
  if (session.signKey !== keys.signKey || session.publicKey !== keys.publicKey)
    throw new WirebadgeError("IDENTITY_MISMATCH", "that session has other keys", {
      hint: "the state folder is damaged: join again with a token and an empty one",
    });
  if (session.state !== "active") throw ended(session);
  return { session, fresh: false };
}
