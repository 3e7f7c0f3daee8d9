// Two data threads' worth of a badge network in memory: packet loops with engines in mode "badge", each with its
// BadgeSide, for tests. "a" may open UDP and TCP 5432 of "b", and what "b" serves.
import { type Address, hostPrefix, makeV4, type Prefix, parseAddress } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { leaseEndMs, signLease } from "../../src/control/lease.ts";
import type { OwnLease } from "../../src/engine/desired-state.ts";
import { Engine } from "../../src/engine/engine.ts";
import { BadgeSide } from "../../src/peer/data-thread-badge.ts";
import { type DataThreadNotice, WAITING_BYTES, waitingRooms } from "../../src/peer/data-thread-messages.ts";
import { PacketLoop } from "../../src/peer/packet-loop.ts";
import { coordinatorSeed, crypto, EPOCH, sessionId } from "../engine/engine-world.ts";
import { MemoryTun } from "../io/memory-tun.ts";
import { MemoryUdpNetwork, type MemoryUdpSocket } from "../io/memory-udp-socket.ts";
import { plainMemory } from "../io/plain-memory.ts";

const PORT = 51_820;
export const LEASE_MS = 60_000;
const START_MS = 1_700_000_000_000;

const keyOf = (number: number) => {
  const privateKey = new Uint8Array(32).fill(number);
  return { privateKey, publicKey: crypto.publicKey(privateKey) };
};

export class BadgeEnd {
  readonly session: string;
  readonly address: Address;
  readonly outer: { readonly address: Address; readonly port: number };
  readonly rooms = waitingRooms(new SharedArrayBuffer(WAITING_BYTES));
  readonly notices: DataThreadNotice[] = [];
  readonly tun: MemoryTun;
  readonly udp: MemoryUdpSocket;
  readonly loop: PacketLoop;
  readonly badge: BadgeSide;
  readonly engine: Engine;
  /** Of `sharedMs`, where a test sets it. */
  sharedMs = 0;

  constructor(number: 1 | 2, network: MemoryUdpNetwork, clock: { nowMs(): number }) {
    this.session = sessionId(number === 1 ? "a" : "b");
    this.address = parseAddress(`fd00:77::${number}`)!;
    this.outer = { address: makeV4(0xc0000200 + number), port: PORT };
    const memory = plainMemory(8 << 20);
    this.tun = new MemoryTun(memory, `tun${number}`);
    this.udp = network.open(memory, { family: 4, port: PORT, address: this.outer.address, gso: true, gro: true });
    const { rooms, notices } = this;
    this.badge = new BadgeSide({
      crypto,
      rooms,
      tell: (notice) => notices.push(notice),
      clock,
      sharedMs: () => this.sharedMs,
    });
    this.loop = new PacketLoop({
      memory,
      tun: this.tun,
      v4: this.udp,
      v6: undefined,
      poller: {
        wait: () => 0,
        events: (index) => (index === 1 ? Number(this.tun.isReadable) : Number(index === 2 && this.udp.isReadable)),
      },
      clock,
      aside: this.badge,
      onWake: () => undefined,
      onLost: () => undefined,
    });
    this.engine = new Engine({
      crypto,
      random: new SeededRandom(number),
      keyPair: keyOf(number),
      mode: "badge",
      mtuBytes: 1_420,
      stopwatch: () => 0,
      leases: this.badge.leases,
      sink: { ...this.loop.engineSink, ...this.badge.sink },
    });
    this.loop.attach(this.engine);
    this.badge.attach(this.engine, this.loop);
    this.badge.handle({ kind: "sign-key", key: crypto.signPublicKey(coordinatorSeed) });
    this.badge.handle({ kind: "own-lease", lease: this.newLease(clock.nowMs(), 1) });
  }

  newLease(issuedMs: number, serial: number): OwnLease {
    const lease = { session: this.session, epoch: EPOCH, serial, issuedMs, lifetimeMs: LEASE_MS };
    return { bytes: signLease(crypto, coordinatorSeed, lease), epoch: EPOCH, serial, endMs: leaseEndMs(lease) };
  }

  /** `grants`: whether "a" may open anything of "b". */
  apply(nowMs: number, other: BadgeEnd, transit: readonly Prefix[], grants: boolean, revision: number): void {
    const isB = this.session === sessionId("b");
    const served = isB ? transit : [];
    const targets = [hostPrefix(isB ? this.address : other.address), ...transit];
    const rules = targets.flatMap((to) =>
      (["tcp", "udp"] as const).map((protocol) => ({
        id: "grant",
        action: "allow" as const,
        sessions: [other.session],
        to,
        protocol,
        ports: [[5_432, 5_432]] as const,
      })),
    );
    const allowed = grants ? rules : [];
    this.engine.apply(nowMs, {
      epoch: EPOCH,
      revision,
      mode: "badge",
      addresses: [this.address],
      transit: served,
      filter: {
        revision,
        policyVersion: revision,
        inbound: isB ? allowed : [],
        outbound: isB ? [] : allowed,
        inboundHosts: [],
        outboundHosts: [],
        revoked: [],
      },
      peers: [
        {
          session: other.session,
          publicKey: other.engine.publicKey,
          kind: "wirebadge",
          prefixes: [hostPrefix(other.address), ...(isB ? [] : transit)],
          linkAddress: other.address,
          endpoints: [other.outer],
        },
      ],
    });
    this.badge.handle({ kind: "stack", plan: { prefixes: served, tcpPorts: [], ownAddresses: [this.address] } });
  }

  told<K extends DataThreadNotice["kind"]>(kind: K): Extract<DataThreadNotice, { readonly kind: K }>[] {
    return this.notices.filter((notice) => notice.kind === kind) as Extract<DataThreadNotice, { readonly kind: K }>[];
  }
}

export interface BadgePair {
  readonly a: BadgeEnd;
  readonly b: BadgeEnd;
  readonly clock: { now: number; nowMs(): number };
  /** `transit`: what "b" serves. */
  apply(transit?: readonly Prefix[], grants?: boolean): void;
  rounds(): void;
}

export function badgePair(): BadgePair {
  const clock = { now: START_MS, nowMs: () => clock.now };
  const network = new MemoryUdpNetwork();
  const [a, b] = [new BadgeEnd(1, network, clock), new BadgeEnd(2, network, clock)];
  let revision = 0;
  return {
    a,
    b,
    clock,
    apply(transit = [], grants = true) {
      revision++;
      a.apply(clock.now, b, transit, grants, revision);
      b.apply(clock.now, a, transit, grants, revision);
    },
    rounds() {
      for (let i = 0; i < 20; i++) {
        clock.now += 1;
        a.loop.round();
        b.loop.round();
      }
    },
  };
}
