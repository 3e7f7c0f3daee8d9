// Rows as the coordinator uses them: lists parsed, absent values undefined. The store turns them into columns and back.
export type IdentityKind = "user" | "node" | "agent";
export type SessionState = "active" | "revoked" | "left";

export interface NetworkRow {
  readonly id: string;
  readonly name: string;
  readonly ula: string;
  readonly pool4: string;
  readonly createdMs: number;
}

export interface IdentityRow {
  readonly name: string;
  readonly kind: IdentityKind;
  readonly sponsor: string | undefined;
  readonly tags: readonly string[];
  readonly createdMs: number;
  readonly removedMs: number | undefined;
}

export interface TokenRow {
  readonly id: string;
  /** SHA-256 in hexadecimal; the secret itself is nowhere. */
  readonly secretHash: string;
  readonly identity: string;
  readonly tags: readonly string[];
  readonly mayRoute: readonly string[];
  readonly uses: number;
  readonly usesLeft: number;
  readonly createdMs: number;
  readonly expiresMs: number;
  readonly revokedMs: number | undefined;
}

export interface SessionRow {
  readonly id: string;
  readonly identity: string;
  readonly token: string;
  readonly mayRoute: readonly string[];
  /** Base64. */
  readonly signKey: string;
  readonly publicKey: string;
  readonly state: SessionState;
  readonly enrolledMs: number;
  readonly endedMs: number | undefined;
  readonly lastSeenMs: number;
  readonly offeredRoutes: readonly string[];
  readonly offeredServes: readonly string[];
  readonly software: string;
  /** IPv6 first, then IPv4 if it has one. */
  readonly addresses: readonly string[];
}

export interface PolicyVersionRow {
  readonly version: number;
  readonly text: string;
  /** Canonical JSON. */
  readonly canonical: string;
  readonly author: string;
  readonly reason: string;
  readonly diff: string;
  readonly atMs: number;
}

export interface AuditRow {
  readonly seq: number;
  readonly atMs: number;
  readonly actor: string;
  readonly action: string;
  readonly subject: string;
  readonly details: Readonly<Record<string, unknown>>;
  readonly previous: string;
  readonly hash: string;
}

export interface RevocationRow {
  readonly session: string;
  readonly selector: string;
  readonly reason: string;
  readonly atMs: number;
  /** Until then every lease of that session has ended; peers keep the signed revocation as long. */
  readonly untilMs: number;
  /** Sessions that knew it: they are told, now or when they come back. */
  readonly concerned: readonly string[];
}
