// The tables, as Kysely sees them. Portable column types only (text, integer): times are Unix ms, lists and objects
// JSON text, keys base64. A row's meaning stands here; its creation in migrations.ts.
export interface NetworkTable {
  id: string;
  name: string;
  ula: string;
  pool4: string;
  created_ms: number;
}

/** Numbers that never go back, reserved in blocks: `epoch`, `revision`, `serial`. */
export interface CounterTable {
  name: string;
  value: number;
}

export interface IdentityTable {
  name: string; // "agent:coder"
  kind: string;
  sponsor: string | null;
  tags: string;
  created_ms: number;
  removed_ms: number | null;
}

export interface TokenTable {
  id: string;
  secret_hash: string;
  identity: string;
  tags: string;
  may_route: string;
  uses: number;
  uses_left: number;
  created_ms: number;
  expires_ms: number;
  revoked_ms: number | null;
}

export interface SessionTable {
  id: string;
  identity: string;
  token: string;
  may_route: string;
  sign_key: string;
  public_key: string;
  state: string; // active, revoked, left
  enrolled_ms: number;
  ended_ms: number | null;
  last_seen_ms: number;
  offered_routes: string;
  offered_serves: string;
  software: string;
}

/** Every overlay address ever given, with its holder: whois of the past, and the rest of an IPv4 address. */
export interface AddressTable {
  address: string;
  session: string;
  identity: string;
  given_ms: number;
  released_ms: number | null;
}

export interface PolicyVersionTable {
  version: number;
  text: string;
  canonical: string;
  author: string;
  reason: string;
  diff: string;
  at_ms: number;
}

export interface AuditTable {
  seq: number;
  at_ms: number;
  actor: string;
  action: string;
  subject: string;
  details: string;
  previous: string;
  hash: string;
}

export interface RevocationTable {
  session: string;
  selector: string;
  reason: string;
  at_ms: number;
  until_ms: number;
  concerned: string;
}

export interface Tables {
  network: NetworkTable;
  counters: CounterTable;
  identities: IdentityTable;
  tokens: TokenTable;
  sessions: SessionTable;
  addresses: AddressTable;
  policy_versions: PolicyVersionTable;
  audit: AuditTable;
  revocations: RevocationTable;
}
