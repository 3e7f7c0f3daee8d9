// A coordinator without its network: roster, policy versions, revisions, leases. What it says reaches a station over a
// control link that delays, keeps the order, and may be cut; then the newest of each kind waits at its end.
import { type Address, type Endpoint, makeAddress, makeV4, type Prefix } from "../base/address.ts";
import { ID_BYTES, toBase32 } from "../base/base32.ts";
import { concatBytes, toHex } from "../base/bytes.ts";
import { randomBytes, type SeededRandom } from "../base/random.ts";
import { leaseEndMs, signLease } from "../control/lease.ts";
import type { Crypto } from "../crypto/provider.ts";
import type { LeaseVerifier, VerifiedLease } from "../engine/desired-state.ts";
import type { Policy } from "../policy/policy.ts";
import type { WorldIdentity, WorldNetwork, WorldSession } from "../policy/world.ts";
import { type Contact, type Law, Lawyer, type Told } from "./law.ts";

export interface SignedLease {
  readonly bytes: Uint8Array;
  readonly epoch: number;
  readonly serial: number;
  readonly endMs: number;
}

export type ControlMessage =
  | { readonly kind: "told"; readonly told: Told }
  | { readonly kind: "lease"; readonly session: string; readonly lease: SignedLease }
  | { readonly kind: "punch"; readonly session: string };

/** How the coordinator reaches the stations and the clock; the simulation implements it. */
export interface ControlPlane {
  /** False: the link is cut; the coordinator comes back when it is mended. */
  send(station: number, message: ControlMessage): boolean;
  /** That station is told of every peer, as if it had its netmap from elsewhere. */
  knowsAll(station: number): boolean;
  /** Calls `renew` or `publish` again then. */
  wake(atMs: number, wake: CoordinatorWake): void;
}

export type CoordinatorWake =
  | { readonly kind: "renew"; readonly session: string; readonly serial: number }
  | { readonly kind: "publish"; readonly version: number };

const NO_KEY = new Uint8Array(32);

interface Row {
  readonly station: number;
  session: WorldSession;
  publicKey: Uint8Array;
  endpoints: readonly Endpoint[];
}

export interface Enrolment {
  readonly station: number;
  readonly identity: string;
  readonly wantsV4: boolean;
  readonly offeredRoutes: readonly string[];
  readonly offeredServices: readonly string[];
  readonly publicKey: Uint8Array;
  readonly endpoint: Endpoint;
}

export class SimCoordinator {
  epoch = 1;
  readonly #random: SeededRandom;
  readonly #plane: ControlPlane;
  readonly #network: WorldNetwork;
  readonly #identities: ReadonlyMap<string, WorldIdentity>;
  /** Every lease ever given, by its bytes: what is not among them nobody signed. */
  readonly #issued = new Map<string, VerifiedLease>();
  readonly #seal: Crypto;
  readonly #rows = new Map<string, Row>();
  readonly #revoked = new Set<string>();
  readonly #lawyer = new Lawyer();
  /** The newest lease of each session: its half life is when the next is due. */
  readonly #newest = new Map<string, number>();
  #policy: Policy;
  #revision = 0;
  #serial = 0;
  #addresses = 0;
  #law: Law | undefined;

  constructor(
    crypto: Crypto,
    random: SeededRandom,
    plane: ControlPlane,
    network: WorldNetwork,
    identities: ReadonlyMap<string, WorldIdentity>,
    policy: Policy,
  ) {
    this.#random = random;
    this.#plane = plane;
    this.#network = network;
    this.#identities = identities;
    this.#policy = policy;
    // In place of a signature a keyed hash: leases are renewed by the thousand, and whoever verifies asks this object.
    const key = randomBytes(random, 32);
    this.#seal = { ...crypto, sign: (_, message) => concatBytes(crypto.hmac(key, message), crypto.hash(message)) };
  }

  /** For every engine. */
  readonly leases: LeaseVerifier = { verify: (bytes) => this.#issued.get(toHex(bytes)) };

  get law(): Law {
    return this.#law!;
  }

  get policy(): Policy {
    return this.#policy;
  }

  /** Which station holds this session; undefined when it is gone. */
  stationOf(session: string): number | undefined {
    return this.#rows.get(session)?.station;
  }

  sessions(): { readonly session: WorldSession; readonly station: number }[] {
    return [...this.#rows.values()].map(({ session, station }) => ({ session, station }));
  }

  /** A session of its own; told to everybody with the next revision. */
  enrol(enrolment: Enrolment): WorldSession {
    const session: WorldSession = {
      id: `s_${toBase32(randomBytes(this.#random, ID_BYTES))}`,
      identity: enrolment.identity,
      kind: "wirebadge",
      addresses: [this.#nextAddress(), ...(enrolment.wantsV4 ? [this.#nextV4()] : [])],
      token: undefined,
      offeredRoutes: enrolment.offeredRoutes,
      offeredServices: enrolment.offeredServices,
      mayRoute: [],
      serviceAddresses: new Map(),
    };
    const { station, publicKey, endpoint } = enrolment;
    this.#rows.set(session.id, { station, session, publicKey, endpoints: [endpoint] });
    return session;
  }

  /** Taken back: its peers are told to cut it, and it gets nothing more. */
  revoke(nowMs: number, session: string): void {
    this.#revoked.add(session);
    this.remove(nowMs, session);
  }

  /** Gone without a word of its own: it is nobody's peer any more. */
  remove(nowMs: number, session: string): void {
    if (this.#rows.delete(session)) this.publish(nowMs);
  }

  setPolicy(nowMs: number, policy: Policy): void {
    this.#policy = policy;
    this.publish(nowMs);
  }

  setEndpoint(nowMs: number, session: string, endpoint: Endpoint): void {
    const row = this.#rows.get(session);
    if (row === undefined) return;
    row.endpoints = [endpoint];
    this.publish(nowMs);
  }

  setPublicKey(nowMs: number, session: string, publicKey: Uint8Array): void {
    const row = this.#rows.get(session);
    if (row === undefined) return;
    row.publicKey = publicKey;
    this.publish(nowMs);
  }

  /** From a backup: leases of the old epoch are refused as soon as the new one is known. */
  beginEpoch(nowMs: number): void {
    this.epoch++;
    this.#serial = 0;
    this.publish(nowMs);
    for (const id of this.#rows.keys()) this.#issue(nowMs, id);
  }

  /** A new revision for everybody. */
  publish(nowMs: number): void {
    this.#revision++;
    this.#law = {
      revision: this.#revision,
      policy: this.#policy,
      world: { network: this.#network, identities: this.#identities, sessions: this.#withServiceAddresses() },
      revoked: [...this.#revoked],
    };
    for (const row of this.#rows.values()) this.#tell(nowMs, row);
  }

  wake(nowMs: number, wake: CoordinatorWake): void {
    if (wake.kind === "publish") {
      if (wake.version === this.#revision) this.publish(nowMs);
    } else if (this.#newest.get(wake.session) === wake.serial) this.#issue(nowMs, wake.session);
  }

  /** Its link is up (again): all that it should know, as if it had just connected. */
  connected(nowMs: number, session: string): void {
    const row = this.#rows.get(session);
    if (row === undefined) return;
    this.#tell(nowMs, row);
    this.#issue(nowMs, session);
  }

  /** `from` is about to make a tunnel to `to`. */
  tunnelWanted(from: string, to: string): void {
    const row = this.#rows.get(to);
    if (row !== undefined && this.#rows.has(from)) this.#plane.send(row.station, { kind: "punch", session: from });
  }

  #tell(nowMs: number, row: Row): void {
    const contactOf = (id: string): Contact => {
      const { publicKey, endpoints } = this.#rows.get(id)!;
      return { publicKey, endpoints };
    };
    const { told, nextChangeMs } = this.#lawyer.told(
      this.law,
      row.session,
      this.epoch,
      nowMs,
      contactOf,
      this.#plane.knowsAll(row.station),
    );
    this.#plane.send(row.station, { kind: "told", told });
    if (nextChangeMs !== undefined) this.#plane.wake(nextChangeMs, { kind: "publish", version: this.#revision });
  }

  #issue(nowMs: number, session: string): void {
    const row = this.#rows.get(session);
    if (row === undefined) return;
    const lifetimeMs = this.#policy.leaseMs[this.#identities.get(row.session.identity)!.kind];
    const lease = { session, epoch: this.epoch, serial: ++this.#serial, issuedMs: Math.floor(nowMs), lifetimeMs };
    const bytes = signLease(this.#seal, NO_KEY, lease);
    const { epoch, serial } = lease;
    const endMs = leaseEndMs(lease);
    this.#newest.set(session, serial);
    this.#plane.wake(nowMs + lifetimeMs / 2, { kind: "renew", session, serial });
    this.#issued.set(toHex(bytes), { session, epoch, serial, endMs });
    this.#plane.send(row.station, { kind: "lease", session, lease: { bytes, epoch, serial, endMs } });
  }

  #withServiceAddresses(): ReadonlyMap<string, WorldSession> {
    const sessions = new Map([...this.#rows].map(([id, row]) => [id, row.session]));
    const world = { network: this.#network, identities: this.#identities, sessions };
    for (const row of this.#rows.values()) {
      const accepted = this.#lawyer.acceptedServices(this.#policy, world, row.session);
      const missing = accepted.filter((name) => !row.session.serviceAddresses.has(name));
      if (missing.length === 0) continue;
      const serviceAddresses = new Map(row.session.serviceAddresses);
      for (const name of missing) serviceAddresses.set(name, this.#nextAddress());
      row.session = { ...row.session, serviceAddresses };
      sessions.set(row.session.id, row.session);
    }
    return sessions;
  }

  #nextAddress(): Address {
    return below(this.#network.ula, ++this.#addresses);
  }

  #nextV4(): Address {
    return makeV4(this.#network.pool4.address.w3 + ++this.#addresses);
  }
}

function below({ address }: Prefix, number: number): Address {
  return makeAddress(address.w0, address.w1, 0, number);
}
