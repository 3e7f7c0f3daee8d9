// The store's interface: what the coordinator needs kept. Every change runs in one transaction with its audit entry, so
// that no crash leaves one without the other; a method resolves only when its transaction is on disk.
import type {
  AuditRow,
  IdentityRow,
  NetworkRow,
  PolicyVersionRow,
  RevocationRow,
  SessionRow,
  SessionState,
  TokenRow,
} from "./rows.ts";

export interface AuditEvent {
  readonly actor: string;
  readonly action: string;
  readonly subject: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

export interface AuditHead {
  /** 0 with AUDIT_GENESIS: no entry yet. */
  readonly seq: number;
  readonly hash: string;
}

/** Counters that only rise. `epoch` changes when a backup is restored. */
export type CounterName = "epoch" | "revision" | "serial" | "longest-lease-ms";

/** Inside one transaction. */
export interface StoreTransaction {
  network(): Promise<NetworkRow | undefined>;
  insertNetwork(row: NetworkRow): Promise<void>;
  /** The counter's new value after adding. */
  addToCounter(name: CounterName, amount: number): Promise<number>;
  /** Its value afterwards: at least that. */
  raiseCounter(name: CounterName, atLeast: number): Promise<number>;

  identities(): Promise<IdentityRow[]>;
  identity(name: string): Promise<IdentityRow | undefined>;
  /** Inserts, or replaces the one with that name. */
  putIdentity(row: IdentityRow): Promise<void>;

  tokens(): Promise<TokenRow[]>;
  token(id: string): Promise<TokenRow | undefined>;
  insertToken(row: TokenRow): Promise<void>;
  /** False when no use was left. */
  spendToken(id: string): Promise<boolean>;
  revokeToken(id: string, atMs: number): Promise<void>;

  sessions(): Promise<SessionRow[]>;
  session(id: string): Promise<SessionRow | undefined>;
  sessionByKeys(signKey: string, publicKey: string): Promise<SessionRow | undefined>;
  /** With its addresses. */
  insertSession(row: SessionRow): Promise<void>;
  endSession(id: string, state: Exclude<SessionState, "active">, atMs: number): Promise<void>;
  setOffers(id: string, routes: readonly string[], serves: readonly string[]): Promise<void>;
  setSeen(id: string, atMs: number, software: string): Promise<void>;

  /** True when the address was ever given to any session. */
  addressEverGiven(address: string): Promise<boolean>;
  /** IPv4 addresses in use, or released after `restedSinceMs` by another identity than `identity`. */
  takenAddresses4(identity: string, restedSinceMs: number): Promise<Set<string>>;
  /** Who holds or held an address, newest first. */
  addressHistory(
    address: string,
  ): Promise<{ session: string; identity: string; givenMs: number; releasedMs: number | undefined }[]>;

  policy(version?: number): Promise<PolicyVersionRow | undefined>;
  insertPolicy(row: PolicyVersionRow): Promise<void>;

  revocations(untilAfterMs: number): Promise<RevocationRow[]>;
  insertRevocation(row: RevocationRow): Promise<void>;

  /** Appends to the hash chain. */
  audit(atMs: number, event: AuditEvent): Promise<void>;
  auditEntries(after: number, limit: number): Promise<AuditRow[]>;
  /** When anything was last written down: the newest audit line, or the last sight of a session. 0: never. */
  latestMs(): Promise<number>;
}

export interface Store {
  /** Commits when `work` resolves, rolls back when it rejects. Transactions run one after another. */
  transaction<T>(work: (tx: StoreTransaction) => Promise<T>): Promise<T>;
  /** Into a new file, as it is between two transactions; the last audit entry in it. */
  copyTo(path: string): Promise<AuditHead>;
  /** The last committed entry of the audit log. */
  auditHead(): AuditHead;
  close(): Promise<void>;
}
