// Numbered migrations, applied in order at start. One that has been released is never edited: another follows it.
import type { Kysely, Migration } from "kysely";

const first: Migration = {
  async up(db: Kysely<unknown>): Promise<void> {
    await db.schema
      .createTable("network")
      .addColumn("id", "text", (c) => c.primaryKey())
      .addColumn("name", "text", (c) => c.notNull())
      .addColumn("ula", "text", (c) => c.notNull())
      .addColumn("pool4", "text", (c) => c.notNull())
      .addColumn("created_ms", "bigint", (c) => c.notNull())
      .execute();
    await db.schema
      .createTable("counters")
      .addColumn("name", "text", (c) => c.primaryKey())
      .addColumn("value", "bigint", (c) => c.notNull())
      .execute();
    await db.schema
      .createTable("identities")
      .addColumn("name", "text", (c) => c.primaryKey())
      .addColumn("kind", "text", (c) => c.notNull())
      .addColumn("sponsor", "text")
      .addColumn("tags", "text", (c) => c.notNull())
      .addColumn("created_ms", "bigint", (c) => c.notNull())
      .addColumn("removed_ms", "bigint")
      .execute();
    await db.schema
      .createTable("tokens")
      .addColumn("id", "text", (c) => c.primaryKey())
      .addColumn("secret_hash", "text", (c) => c.notNull())
      .addColumn("identity", "text", (c) => c.notNull().references("identities.name"))
      .addColumn("tags", "text", (c) => c.notNull())
      .addColumn("may_route", "text", (c) => c.notNull())
      .addColumn("uses", "integer", (c) => c.notNull())
      .addColumn("uses_left", "integer", (c) => c.notNull())
      .addColumn("created_ms", "bigint", (c) => c.notNull())
      .addColumn("expires_ms", "bigint", (c) => c.notNull())
      .addColumn("revoked_ms", "bigint")
      .execute();
    await db.schema
      .createTable("sessions")
      .addColumn("id", "text", (c) => c.primaryKey())
      .addColumn("identity", "text", (c) => c.notNull().references("identities.name"))
      .addColumn("token", "text", (c) => c.notNull().references("tokens.id"))
      .addColumn("may_route", "text", (c) => c.notNull())
      .addColumn("sign_key", "text", (c) => c.notNull().unique())
      .addColumn("public_key", "text", (c) => c.notNull().unique())
      .addColumn("state", "text", (c) => c.notNull())
      .addColumn("enrolled_ms", "bigint", (c) => c.notNull())
      .addColumn("ended_ms", "bigint")
      .addColumn("last_seen_ms", "bigint", (c) => c.notNull())
      .addColumn("offered_routes", "text", (c) => c.notNull())
      .addColumn("offered_serves", "text", (c) => c.notNull())
      .addColumn("software", "text", (c) => c.notNull())
      .execute();
    await db.schema
      .createTable("addresses")
      .addColumn("address", "text", (c) => c.notNull())
      .addColumn("session", "text", (c) => c.notNull().references("sessions.id"))
      .addColumn("identity", "text", (c) => c.notNull())
      .addColumn("given_ms", "bigint", (c) => c.notNull())
      .addColumn("released_ms", "bigint")
      .addPrimaryKeyConstraint("addresses_key", ["address", "session"])
      .execute();
    await db.schema.createIndex("addresses_by_session").on("addresses").column("session").execute();
    await db.schema
      .createTable("policy_versions")
      .addColumn("version", "integer", (c) => c.primaryKey())
      .addColumn("text", "text", (c) => c.notNull())
      .addColumn("canonical", "text", (c) => c.notNull())
      .addColumn("author", "text", (c) => c.notNull())
      .addColumn("reason", "text", (c) => c.notNull())
      .addColumn("diff", "text", (c) => c.notNull())
      .addColumn("at_ms", "bigint", (c) => c.notNull())
      .execute();
    await db.schema
      .createTable("audit")
      .addColumn("seq", "integer", (c) => c.primaryKey())
      .addColumn("at_ms", "bigint", (c) => c.notNull())
      .addColumn("actor", "text", (c) => c.notNull())
      .addColumn("action", "text", (c) => c.notNull())
      .addColumn("subject", "text", (c) => c.notNull())
      .addColumn("details", "text", (c) => c.notNull())
      .addColumn("previous", "text", (c) => c.notNull())
      .addColumn("hash", "text", (c) => c.notNull().unique())
      .execute();
    await db.schema
      .createTable("revocations")
      .addColumn("session", "text", (c) => c.primaryKey().references("sessions.id"))
      .addColumn("selector", "text", (c) => c.notNull())
      .addColumn("reason", "text", (c) => c.notNull())
      .addColumn("at_ms", "bigint", (c) => c.notNull())
      .addColumn("until_ms", "bigint", (c) => c.notNull())
      .addColumn("concerned", "text", (c) => c.notNull())
      .execute();
  },
};

/** In their order of application, which is the order of their names. */
export const MIGRATIONS: Readonly<Record<string, Migration>> = { "0001-first": first };
