// The store in SQL through Kysely, for any dialect it knows. Columns are snake_case, rows as in rows.ts.
import { type Dialect, Kysely, Migrator, type Selectable, sql, type Transaction } from "kysely";
import { WirebadgeError } from "../../base/errors.ts";
import { AUDIT_GENESIS, auditHash, canonicalJson } from "../audit.ts";
import { MIGRATIONS } from "./migrations.ts";
import type {
  AuditRow,
  IdentityKind,
  IdentityRow,
  NetworkRow,
  PolicyVersionRow,
  RevocationRow,
  SessionRow,
  SessionState,
  TokenRow,
} from "./rows.ts";
import type { AuditEvent, AuditHead, CounterName, Store, StoreTransaction } from "./store.ts";
import type { AuditTable, IdentityTable, SessionTable, Tables, TokenTable } from "./tables.ts";

const listOf = (text: string): string[] => JSON.parse(text) as string[];
const orUndefined = <T>(value: T | null): T | undefined => value ?? undefined;

function identityRow(row: Selectable<IdentityTable>): IdentityRow {
  return {
    name: row.name,
    kind: row.kind as IdentityKind,
    sponsor: orUndefined(row.sponsor),
    tags: listOf(row.tags),
    createdMs: row.created_ms,
    removedMs: orUndefined(row.removed_ms),
  };
}

function tokenRow(row: Selectable<TokenTable>): TokenRow {
  return {
    id: row.id,
    secretHash: row.secret_hash,
    identity: row.identity,
    tags: listOf(row.tags),
    mayRoute: listOf(row.may_route),
    uses: row.uses,
    usesLeft: row.uses_left,
    createdMs: row.created_ms,
    expiresMs: row.expires_ms,
    revokedMs: orUndefined(row.revoked_ms),
  };
}

function sessionRow(row: Selectable<SessionTable>, addresses: readonly string[]): SessionRow {
  return {
    id: row.id,
    identity: row.identity,
    token: row.token,
    mayRoute: listOf(row.may_route),
    signKey: row.sign_key,
    publicKey: row.public_key,
    state: row.state as SessionState,
    enrolledMs: row.enrolled_ms,
    endedMs: orUndefined(row.ended_ms),
    lastSeenMs: row.last_seen_ms,
    offeredRoutes: listOf(row.offered_routes),
    offeredServes: listOf(row.offered_serves),
    software: row.software,
    addresses,
  };
}

function auditRow(row: Selectable<AuditTable>): AuditRow {
  const details = JSON.parse(row.details) as Record<string, unknown>;
  const { seq, actor, action, subject, previous, hash } = row;
  return { seq, atMs: row.at_ms, actor, action, subject, details, previous, hash };
}

/** IPv6 before IPv4. */
function sortAddresses(addresses: string[]): string[] {
  return addresses.sort((a, b) => Number(b.includes(":")) - Number(a.includes(":")));
}

class SqlTransaction implements StoreTransaction {
  readonly #db: Transaction<Tables>;
  /** What this transaction appended last. */
  appended: AuditHead | undefined;

  constructor(db: Transaction<Tables>) {
    this.#db = db;
  }

  async network(): Promise<NetworkRow | undefined> {
    const row = await this.#db.selectFrom("network").selectAll().executeTakeFirst();
    if (row === undefined) return undefined;
    return { id: row.id, name: row.name, ula: row.ula, pool4: row.pool4, createdMs: row.created_ms };
  }

  async insertNetwork(row: NetworkRow): Promise<void> {
    const { id, name, ula, pool4, createdMs } = row;
    await this.#db.insertInto("network").values({ id, name, ula, pool4, created_ms: createdMs }).execute();
  }

  async addToCounter(name: CounterName, amount: number): Promise<number> {
    const row = await this.#db
      .insertInto("counters")
      .values({ name, value: amount })
      .onConflict((conflict) =>
        conflict.column("name").doUpdateSet((eb) => ({ value: eb("counters.value", "+", amount) })),
      )
      .returning("value")
      .executeTakeFirstOrThrow();
    return row.value;
  }

  async raiseCounter(name: CounterName, atLeast: number): Promise<number> {
    const known = await this.addToCounter(name, 0);
    return known >= atLeast ? known : await this.addToCounter(name, atLeast - known);
  }

  async identities(): Promise<IdentityRow[]> {
    return (await this.#db.selectFrom("identities").selectAll().orderBy("name").execute()).map(identityRow);
  }

  async identity(name: string): Promise<IdentityRow | undefined> {
    const row = await this.#db.selectFrom("identities").selectAll().where("name", "=", name).executeTakeFirst();
    return row === undefined ? undefined : identityRow(row);
  }

  async putIdentity(row: IdentityRow): Promise<void> {
    const columns = {
      kind: row.kind,
      sponsor: row.sponsor ?? null,
      tags: JSON.stringify(row.tags),
      created_ms: row.createdMs,
      removed_ms: row.removedMs ?? null,
    };
    await this.#db
      .insertInto("identities")
      .values({ name: row.name, ...columns })
      .onConflict((conflict) => conflict.column("name").doUpdateSet(columns))
      .execute();
  }

  async tokens(): Promise<TokenRow[]> {
    return (await this.#db.selectFrom("tokens").selectAll().orderBy("created_ms").orderBy("id").execute()).map(
      tokenRow,
    );
  }

  async token(id: string): Promise<TokenRow | undefined> {
    const row = await this.#db.selectFrom("tokens").selectAll().where("id", "=", id).executeTakeFirst();
    return row === undefined ? undefined : tokenRow(row);
  }

  async insertToken(row: TokenRow): Promise<void> {
    await this.#db
      .insertInto("tokens")
      .values({
        id: row.id,
        secret_hash: row.secretHash,
        identity: row.identity,
        tags: JSON.stringify(row.tags),
        may_route: JSON.stringify(row.mayRoute),
        uses: row.uses,
        uses_left: row.usesLeft,
        created_ms: row.createdMs,
        expires_ms: row.expiresMs,
        revoked_ms: row.revokedMs ?? null,
      })
      .execute();
  }

  async spendToken(id: string): Promise<boolean> {
    const result = await this.#db
      .updateTable("tokens")
      .set((eb) => ({ uses_left: eb("uses_left", "-", 1) }))
      .where("id", "=", id)
      .where("uses_left", ">", 0)
      .executeTakeFirst();
    return result.numUpdatedRows === 1n;
  }

  async revokeToken(id: string, atMs: number): Promise<void> {
    await this.#db.updateTable("tokens").set({ revoked_ms: atMs }).where("id", "=", id).execute();
  }

  async sessions(): Promise<SessionRow[]> {
    const addresses = new Map<string, string[]>();
    for (const row of await this.#db.selectFrom("addresses").select(["session", "address"]).execute()) {
      const list = addresses.get(row.session);
      if (list === undefined) addresses.set(row.session, [row.address]);
      else list.push(row.address);
    }
    const rows = await this.#db.selectFrom("sessions").selectAll().orderBy("enrolled_ms").orderBy("id").execute();
    return rows.map((row) => sessionRow(row, sortAddresses(addresses.get(row.id) ?? [])));
  }

  async session(id: string): Promise<SessionRow | undefined> {
    return this.#withAddresses(
      await this.#db.selectFrom("sessions").selectAll().where("id", "=", id).executeTakeFirst(),
    );
  }

  /** Either key is enough: a key belongs to one session for ever. */
  async sessionByKeys(signKey: string, publicKey: string): Promise<SessionRow | undefined> {
    const query = this.#db.selectFrom("sessions").selectAll();
    return this.#withAddresses(
      await query
        .where((eb) => eb.or([eb("sign_key", "=", signKey), eb("public_key", "=", publicKey)]))
        .executeTakeFirst(),
    );
  }

  async #withAddresses(row: Selectable<SessionTable> | undefined): Promise<SessionRow | undefined> {
    if (row === undefined) return undefined;
    const rows = await this.#db.selectFrom("addresses").select("address").where("session", "=", row.id).execute();
    return sessionRow(row, sortAddresses(rows.map(({ address }) => address)));
  }

  async insertSession(row: SessionRow): Promise<void> {
    await this.#db
      .insertInto("sessions")
      .values({
        id: row.id,
        identity: row.identity,
        token: row.token,
        may_route: JSON.stringify(row.mayRoute),
        sign_key: row.signKey,
        public_key: row.publicKey,
        state: row.state,
        enrolled_ms: row.enrolledMs,
        ended_ms: row.endedMs ?? null,
        last_seen_ms: row.lastSeenMs,
        offered_routes: JSON.stringify(row.offeredRoutes),
        offered_serves: JSON.stringify(row.offeredServes),
        software: row.software,
      })
      .execute();
    for (const address of row.addresses) {
      await this.#db
        .insertInto("addresses")
        .values({ address, session: row.id, identity: row.identity, given_ms: row.enrolledMs, released_ms: null })
        .execute();
    }
  }

  async endSession(id: string, state: Exclude<SessionState, "active">, atMs: number): Promise<void> {
    await this.#db.updateTable("sessions").set({ state, ended_ms: atMs }).where("id", "=", id).execute();
    await this.#db
      .updateTable("addresses")
      .set({ released_ms: atMs })
      .where("session", "=", id)
      .where("released_ms", "is", null)
      .execute();
  }

  async setOffers(id: string, routes: readonly string[], serves: readonly string[]): Promise<void> {
    const offers = { offered_routes: JSON.stringify(routes), offered_serves: JSON.stringify(serves) };
    await this.#db.updateTable("sessions").set(offers).where("id", "=", id).execute();
  }

  async setSeen(id: string, atMs: number, software: string): Promise<void> {
    await this.#db.updateTable("sessions").set({ last_seen_ms: atMs, software }).where("id", "=", id).execute();
  }

  async addressEverGiven(address: string): Promise<boolean> {
    const query = this.#db.selectFrom("addresses").select("address").where("address", "=", address);
    return (await query.executeTakeFirst()) !== undefined;
  }

  async takenAddresses4(identity: string, restedSinceMs: number): Promise<Set<string>> {
    const rows = await this.#db
      .selectFrom("addresses")
      .select("address")
      .where("address", "not like", "%:%")
      .where((eb) =>
        eb.or([
          eb("released_ms", "is", null),
          eb.and([eb("released_ms", ">", restedSinceMs), eb("identity", "!=", identity)]),
        ]),
      )
      .execute();
    return new Set(rows.map(({ address }) => address));
  }

  async addressHistory(
    address: string,
  ): Promise<{ session: string; identity: string; givenMs: number; releasedMs: number | undefined }[]> {
    const query = this.#db.selectFrom("addresses").selectAll().where("address", "=", address);
    const rows = await query.orderBy("given_ms", "desc").execute();
    return rows.map((row) => ({
      session: row.session,
      identity: row.identity,
      givenMs: row.given_ms,
      releasedMs: orUndefined(row.released_ms),
    }));
  }

  async policy(version?: number): Promise<PolicyVersionRow | undefined> {
    let query = this.#db.selectFrom("policy_versions").selectAll().orderBy("version", "desc");
    if (version !== undefined) query = query.where("version", "=", version);
    const row = await query.limit(1).executeTakeFirst();
    if (row === undefined) return undefined;
    const { text, canonical, author, reason, diff } = row;
    return { version: row.version, text, canonical, author, reason, diff, atMs: row.at_ms };
  }

  async insertPolicy(row: PolicyVersionRow): Promise<void> {
    const { atMs, ...columns } = row;
    await this.#db
      .insertInto("policy_versions")
      .values({ ...columns, at_ms: atMs })
      .execute();
  }

  async revocations(untilAfterMs: number): Promise<RevocationRow[]> {
    const rows = await this.#db.selectFrom("revocations").selectAll().where("until_ms", ">", untilAfterMs).execute();
    return rows.map((row) => ({
      session: row.session,
      selector: row.selector,
      reason: row.reason,
      atMs: row.at_ms,
      untilMs: row.until_ms,
      concerned: listOf(row.concerned),
    }));
  }

  async insertRevocation(row: RevocationRow): Promise<void> {
    const { session, selector, reason, atMs, untilMs } = row;
    const concerned = JSON.stringify(row.concerned);
    await this.#db
      .insertInto("revocations")
      .values({ session, selector, reason, at_ms: atMs, until_ms: untilMs, concerned })
      .execute();
  }

  async audit(atMs: number, event: AuditEvent): Promise<void> {
    const last = await this.#db
      .selectFrom("audit")
      .select(["seq", "hash"])
      .orderBy("seq", "desc")
      .limit(1)
      .executeTakeFirst();
    const { actor, action, subject, details = {} } = event;
    const entry = {
      seq: (last?.seq ?? 0) + 1,
      atMs: Math.floor(atMs),
      actor,
      action,
      subject,
      details: JSON.parse(canonicalJson(details)) as Record<string, unknown>,
      previous: last?.hash ?? AUDIT_GENESIS,
    };
    const { seq, previous } = entry;
    const hash = auditHash(entry);
    await this.#db
      .insertInto("audit")
      .values({
        seq,
        at_ms: entry.atMs,
        actor,
        action,
        subject,
        details: canonicalJson(entry.details),
        previous,
        hash,
      })
      .execute();
    this.appended = { seq, hash };
  }

  async auditEntries(after: number, limit: number): Promise<AuditRow[]> {
    const query = this.#db.selectFrom("audit").selectAll().where("seq", ">", after).orderBy("seq").limit(limit);
    return (await query.execute()).map(auditRow);
  }

  async latestMs(): Promise<number> {
    const audit = this.#db.selectFrom("audit").select("at_ms").orderBy("seq", "desc").limit(1);
    const seen = this.#db.selectFrom("sessions").select((eb) => eb.fn.max("last_seen_ms").as("latest"));
    const [line, sessions] = [await audit.executeTakeFirst(), await seen.executeTakeFirst()];
    return Math.max(line?.at_ms ?? 0, Number(sessions?.latest ?? 0));
  }
}

export class SqlStore implements Store {
  readonly #db: Kysely<Tables>;
  #head: AuditHead;

  private constructor(db: Kysely<Tables>, head: AuditHead) {
    this.#db = db;
    this.#head = head;
  }

  /** Brings the tables up to date first. STORE_FAILED when that can't be done. */
  static async open(dialect: Dialect): Promise<SqlStore> {
    const db = new Kysely<Tables>({ dialect });
    const migrator = new Migrator({ db, provider: { getMigrations: async () => ({ ...MIGRATIONS }) } });
    const { error } = await migrator.migrateToLatest();
    if (error !== undefined) {
      await db.destroy();
      if (error instanceof WirebadgeError) throw error;
      throw new WirebadgeError("STORE_FAILED", "the store's tables can't be brought up to date", {
        hint: "the data folder may have been written by a newer version",
        cause: error,
      });
    }
    const last = await db
      .selectFrom("audit")
      .select(["seq", "hash"])
      .orderBy("seq", "desc")
      .limit(1)
      .executeTakeFirst();
    return new SqlStore(db, last ?? { seq: 0, hash: AUDIT_GENESIS });
  }

  async copyTo(path: string): Promise<AuditHead> {
    return await this.#db.connection().execute(async (db) => {
      await sql`vacuum into ${path}`.execute(db);
      return this.#head;
    });
  }

  auditHead(): AuditHead {
    return this.#head;
  }

  async transaction<T>(work: (tx: StoreTransaction) => Promise<T>): Promise<T> {
    let appended: AuditHead | undefined;
    const result = await this.#db.transaction().execute(async (db) => {
      const transaction = new SqlTransaction(db);
      const worked = await work(transaction);
      appended = transaction.appended;
      return worked;
    });
    this.#head = appended ?? this.#head;
    return result;
  }

  async close(): Promise<void> {
    await this.#db.destroy();
  }
}
