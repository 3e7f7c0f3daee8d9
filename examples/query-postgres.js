// An agent asks a private PostgreSQL that only a gateway reaches: `node examples/query-postgres.js "select now()"`,
// with WIREBADGE_TOKEN, and PGUSER, PGPASSWORD and PGDATABASE as ever. Whether it may is the policy's to say:
//   "services": { "staging-db": { "at": "10.0.0.5 tcp:5432", "via": ["node:gw-1"] } },
//   "grants": [{ "from": "agent:coder", "to": "service:staging-db" }]
import pg from "pg";
import { join } from "wirebadge";

await using net = await join({ token: process.env.WIREBADGE_TOKEN, state: process.env.WIREBADGE_STATE });
const client = new pg.Client({ host: "staging-db", port: 5432, stream: () => net.socket() });
try {
  await client.connect();
  const { rows } = await client.query(process.argv[2] ?? "select 1 as one");
  console.log(JSON.stringify(rows));
  await client.end();
} catch (error) {
  console.error(error.message, error.denialId ?? ""); // "connect EACCES …: denied NO_GRANT (d_…); an admin can grant …"
  process.exitCode = 1;
}
