// What the coordinator does with admitted peers and their records. Every answer that changes something waits for its
// commit.

import { parseEndpoint } from "../base/address.ts";
import { toBase64 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import { MINUTE_MS } from "../base/units.ts";
import { CLOSE } from "../control/close-codes.ts";
import { type PeerMessage, type PeerMessageOf, RECORD_LEASE } from "../control/messages.ts";
import type { ProbeKey } from "../control/probe.ts";
import type { Continuity } from "./continuity.ts";
import type { Applicant, ControlConnection, ControlHandler } from "./control-connection.ts";
import type { Core } from "./core.ts";
import { type Admission, enroll, resume } from "./enrolment.ts";
import type { Leases } from "./leases.ts";
import type { Netmaps } from "./netmaps.ts";
import type { ProbeServer } from "./probe-server.ts";
import type { PeerRecords } from "./records.ts";
import type { Roster } from "./roster.ts";
import type { SessionRow } from "./store/rows.ts";

const PUNCHES_PER_SECOND_MAX = 20;
const AUDITED_OFFERS_MAX = 32; // of one session at once; the count says how many there were

interface Present {
  readonly connection: ControlConnection;
  readonly probeKey: ProbeKey;
  readonly punches: TokenBucket;
}

export interface DeskParts {
  readonly core: Core;
  readonly netmaps: Netmaps;
  readonly leases: Leases;
  readonly probes: ProbeServer;
  readonly records: PeerRecords;
  readonly roster: Roster;
  readonly continuity: Continuity;
}

export class ControlDesk implements ControlHandler {
  readonly #parts: DeskParts;
  readonly #present = new Map<string, Present>();
  /** Sessions seen since the last time it was written down. */
  readonly #seen = new Map<string, { atMs: number; software: string }>();

  constructor(parts: DeskParts) {
    this.#parts = parts;
  }

  async admit(applicant: Applicant): Promise<string> {
    const { core } = this.#parts;
    const { request } = applicant;
    await this.#parts.continuity.consider(request.kept);
    return await core.change(
      async (tx): Promise<Admission> => {
        this.#parts.netmaps.checkRoom(request.type === "resume" ? request.session : undefined);
        const admission =
          request.type === "enroll"
            ? await enroll(core, tx, request, applicant)
            : await resume(core, tx, request, applicant);
        const { routes, serves } = request.offers;
        const { session } = admission;
        if (admission.fresh || sameOffers(session, routes, serves)) return admission;
        await tx.setOffers(session.id, routes, serves);
        return { ...admission, session: { ...session, offeredRoutes: routes, offeredServes: serves } };
      },
      ({ session, fresh }) => {
        this.#welcome(session, fresh, applicant);
        return session.id;
      },
    );
  }

  #welcome(session: SessionRow, fresh: boolean, applicant: Applicant): void {
    const { core, netmaps, leases, probes } = this.#parts;
    const { connection, request } = applicant;
    const before = core.world.sessions.get(session.id);
    netmaps.attach(session.id, connection);
    this.#dropPresence(session.id);
    const nowMs = core.nowMs();
    const probeKey = probes.add();
    const punches = new TokenBucket(nowMs, PUNCHES_PER_SECOND_MAX, PUNCHES_PER_SECOND_MAX);
    this.#present.set(session.id, { connection, probeKey, punches });
    const known = sameOffers(before ?? session, session.offeredRoutes, session.offeredServes) && before !== undefined;
    const concerned = new Set(netmaps.seenBy(session.id));
    const affected = known ? "related" : this.#parts.roster.put(session);
    core.world.endpoints.set(session.id, checkedEndpoints(request.endpoints));
    this.#seen.set(session.id, { atMs: nowMs, software: applicant.software });
    core.counters.add(fresh ? "sessions-enrolled" : "sessions-resumed");
    connection.sendMessage({
      type: "welcome",
      session: session.id,
      identity: session.identity,
      signKey: toBase64(core.keys.sign.publicKey),
      epoch: core.world.epoch,
      timeMs: nowMs,
      leaseMs: leases.lengthMs(session),
      probe: { id: toBase64(probeKey.id), key: toBase64(probeKey.key) },
      software: core.software,
      bookmark: this.#parts.continuity.bookmark(),
    });
    netmaps.sendFull(session.id);
    connection.sendBytes(RECORD_LEASE, leases.issue(session));
    if (known) netmaps.setEndpoints(session.id, core.world.endpoints.get(session.id) ?? []);
    else this.#tellConcerned(session.id, concerned);
    if (affected === "all") netmaps.refreshAll();
  }

  /**
   * After its offers changed: those that knew it before, those that know it now, and the audit log of what was refused.
   */
  #tellConcerned(id: string, before: Iterable<string>): void {
    const { core, netmaps, roster } = this.#parts;
    netmaps.refresh([...before, ...roster.peersOf(id, core.nowMs())]);
    const refused = roster.compile(id, core.nowMs())?.refusedOffers ?? [];
    if (refused.length === 0) return;
    core.counters.add("offers-refused", refused.length);
    const event = {
      actor: `session:${id}`,
      action: "offer.refuse",
      subject: `session:${id}`,
      details: { offers: refused.slice(0, AUDITED_OFFERS_MAX), count: refused.length },
    };
    const written = core.change(
      (tx) => tx.audit(core.nowMs(), event),
      () => undefined,
    );
    written.catch((error: unknown) => core.logger.error({ err: error }, "refused offers could not be audited"));
  }

  async handle(session: string, message: PeerMessage, connection: ControlConnection): Promise<void> {
    const { core, netmaps, leases, records } = this.#parts;
    const row = core.world.sessions.get(session);
    if (row === undefined || netmaps.connection(session) !== connection) return; // ended or replaced meanwhile
    const nowMs = core.nowMs();
    this.#seen.set(session, { atMs: nowMs, software: this.#seen.get(session)?.software ?? row.software });
    switch (message.type) {
      case "ping":
        connection.sendMessage({
          type: "pong",
          n: message.n,
          timeMs: core.nowMs(),
          bookmark: this.#parts.continuity.bookmark(),
        });
        break;
      case "renew":
        connection.sendBytes(RECORD_LEASE, leases.issue(row));
        break;
      case "full":
        netmaps.sendFull(session);
        break;
      case "endpoints":
        core.world.endpoints.set(session, checkedEndpoints(message.endpoints));
        netmaps.setEndpoints(session, core.world.endpoints.get(session) ?? []);
        break;
      case "punch":
        this.#punch(session, message.session);
        break;
      case "offers":
        await this.#offers(row, message);
        break;
      case "denials":
        records.add("denial", session, message.records, nowMs);
        break;
      case "flows":
        records.add("flow", session, message.records, nowMs);
        break;
      case "leave":
        await this.#leave(row, connection);
        break;
      default:
        throw new WirebadgeError("USAGE", `a ${message.type} record has no place here`);
    }
  }

  detach(session: string, connection: ControlConnection): void {
    const { core, netmaps } = this.#parts;
    if (!netmaps.detach(session, connection)) return;
    this.#dropPresence(session);
    if (core.world.sessions.has(session))
      this.#seen.set(session, { atMs: core.nowMs(), software: this.#software(session) });
  }

  lastSeenMs(session: SessionRow): number {
    return this.#seen.get(session.id)?.atMs ?? session.lastSeenMs;
  }

  /** Writes down when sessions were last seen; called now and then, and at the end. */
  async flushSeen(): Promise<void> {
    const { core } = this.#parts;
    await core.idle();
    const seen = [...this.#seen];
    this.#seen.clear();
    if (seen.length === 0) return;
    const written = core.change(
      async (tx) => {
        for (const [session, { atMs, software }] of seen) await tx.setSeen(session, atMs, software);
      },
      () => {
        for (const [id, { atMs, software }] of seen) {
          const row = core.world.sessions.get(id);
          if (row !== undefined) core.world.sessions.set(id, { ...row, lastSeenMs: atMs, software });
        }
      },
    );
    try {
      await written;
    } catch (error) {
      for (const [session, entry] of seen) if (!this.#seen.has(session)) this.#seen.set(session, entry); // next time
      throw error;
    }
  }

  /** Ends the channel of a session that was revoked. */
  expel(session: string, error: WirebadgeError): void {
    this.#present.get(session)?.connection.refuse(error);
  }

  #software(session: string): string {
    return this.#seen.get(session)?.software ?? this.#parts.core.world.sessions.get(session)?.software ?? "";
  }

  #dropPresence(session: string): void {
    const present = this.#present.get(session);
    if (present !== undefined) this.#parts.probes.remove(present.probeKey);
    this.#present.delete(session);
  }

  /** Told only to a peer that knows the asker: nobody else has anything to do with it. */
  #punch(from: string, to: string): void {
    const { core, netmaps } = this.#parts;
    const allowed = netmaps.knows(to, from) && this.#present.get(from)?.punches.take(core.nowMs()) === true;
    core.counters.add(allowed ? "punches-relayed" : "punches-dropped");
    if (allowed) netmaps.connection(to)?.sendMessage({ type: "punch", session: from });
  }

  async #offers(row: SessionRow, { routes, serves }: PeerMessageOf<"offers">): Promise<void> {
    const { core, netmaps, roster } = this.#parts;
    if (sameOffers(row, routes, serves)) return;
    await core.change(
      (tx) => tx.setOffers(row.id, routes, serves),
      () => {
        const session = { ...(core.world.sessions.get(row.id) ?? row), offeredRoutes: routes, offeredServes: serves };
        if (!core.world.sessions.has(row.id)) return; // ended while this waited
        const before = netmaps.seenBy(row.id);
        const affected = roster.put(session);
        this.#tellConcerned(row.id, [row.id, ...before]);
        if (affected === "all") netmaps.refreshAll();
      },
    );
  }

  async #leave(row: SessionRow, connection: ControlConnection): Promise<void> {
    const { core, netmaps, roster, leases } = this.#parts;
    const nowMs = core.nowMs();
    await core.change(
      async (tx) => {
        if ((await tx.session(row.id))?.state !== "active") return;
        await tx.endSession(row.id, "left", nowMs);
        await tx.audit(nowMs, { actor: `session:${row.id}`, action: "session.leave", subject: `session:${row.id}` });
      },
      () => {
        const before = netmaps.seenBy(row.id);
        roster.drop(row.id);
        this.#seen.delete(row.id);
        leases.forget(row.id);
        connection.sendMessage({ type: "left" });
        connection.close(CLOSE.refused);
        netmaps.refresh(before);
      },
    );
  }
}

function sameOffers(session: SessionRow, routes: readonly string[], serves: readonly string[]): boolean {
  return (
    session.offeredRoutes.join("\n") === routes.join("\n") && session.offeredServes.join("\n") === serves.join("\n")
  );
}

/** Those that are endpoints; how long a session may keep an unusable one is its peers' affair. */
function checkedEndpoints(endpoints: readonly string[]): string[] {
  return [...new Set(endpoints)].filter((text) => parseEndpoint(text) !== undefined);
}

/** How often `flushSeen` is called. */
export const FLUSH_SEEN_EVERY_MS = MINUTE_MS;
