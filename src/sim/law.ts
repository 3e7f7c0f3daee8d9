// What the document says of one roster of sessions, twice: compiled for the engines, and asked of the naive evaluator,
// which is the simulator's judge. A station is held to the law that it was told last, not to the newest.
import { type Address, hostPrefix, type Prefix, parsePrefix } from "../base/address.ts";
import type { DesiredPeer, DesiredState } from "../engine/desired-state.ts";
import type { FilterProtocol } from "../filter/contract.ts";
import { type CompiledPeer, PolicyCompiler } from "../policy/compile.ts";
import { evaluate } from "../policy/evaluate.ts";
import type { Policy } from "../policy/policy.ts";
import type { World, WorldSession } from "../policy/world.ts";
import { type Facts, ICMP4, ICMP6, TCP, UDP } from "./packets.ts";

export interface Law {
  readonly revision: number;
  readonly policy: Policy;
  readonly world: World;
  /** Sessions that the coordinator took back. */
  readonly revoked: readonly string[];
}

/** One station's part of a law. */
export interface Told {
  readonly law: Law;
  readonly session: string;
  /** The coordinator's time when it was compiled: grants that had ended by then are left out of it. */
  readonly compiledMs: number;
  readonly state: DesiredState;
}

export function protocolOf(protocol: number): FilterProtocol {
  if (protocol === TCP) return "tcp";
  if (protocol === UDP) return "udp";
  return protocol === ICMP4 || protocol === ICMP6 ? "icmp" : "any";
}

/** May session `from` open this at session `at`? `clockMs` is by the coordinator's clock. */
export function mayOpen(law: Law, from: string, at: string, facts: Facts, clockMs: number): boolean {
  const protocol = protocolOf(facts.protocol);
  const port = protocol === "tcp" || protocol === "udp" ? facts.destinationPort : 0;
  return evaluate(law.policy, law.world, { from, at, to: facts.destination, protocol, port }, clockMs).allowed;
}

/** What a session needs besides its keys to be somebody's peer. */
export interface Contact {
  readonly publicKey: Uint8Array;
  readonly endpoints: DesiredPeer["endpoints"];
}

/** Keeps the compiler from revision to revision, as a coordinator does, for as long as the policy is the same. */
export class Lawyer {
  #compiler: PolicyCompiler | undefined;
  #known = new Map<string, WorldSession>();

  /** Services that this session may serve, for the coordinator to give addresses to. */
  acceptedServices(policy: Policy, world: World, session: WorldSession): readonly string[] {
    this.#update(policy, world);
    return this.#compiler!.acceptedServices(session.id);
  }

  told(
    law: Law,
    session: WorldSession,
    epoch: number,
    clockMs: number,
    contactOf: (id: string) => Contact,
    knowsAll = false,
  ): { readonly told: Told; readonly nextChangeMs: number | undefined } {
    this.#update(law.policy, law.world);
    const compiled = this.#compiler!.compilePeer(session.id, clockMs)!;
    const state: DesiredState = {
      epoch,
      revision: law.revision,
      mode: "badge",
      addresses: session.addresses,
      transit: transitOf(compiled),
      filter: {
        revision: law.revision,
        policyVersion: law.policy.version,
        inbound: compiled.inbound,
        outbound: compiled.outbound,
        inboundHosts: compiled.inboundHosts,
        outboundHosts: compiled.outboundHosts,
        revoked: law.revoked,
      },
      peers: (knowsAll ? this.#everybody(law.world, session) : compiled.peers).map((peer) => {
        const linkAddress = law.world.sessions.get(peer.session)!.addresses[0];
        return {
          ...peer,
          ...contactOf(peer.session),
          kind: "wirebadge" as const,
          ...(linkAddress === undefined ? {} : { linkAddress }),
        };
      }),
    };
    return { told: { law, session: session.id, compiledMs: clockMs, state }, nextChangeMs: compiled.nextChangeMs };
  }

  /** With everything that each of them may ever carry: for one that asks for more than it is granted. */
  #everybody(world: World, self: WorldSession): { readonly session: string; readonly prefixes: Prefix[] }[] {
    return [...world.sessions.values()]
      .filter((session) => session.id !== self.id)
      .map((session) => ({
        session: session.id,
        prefixes: [
          ...[...session.addresses, ...session.serviceAddresses.values()].map(hostPrefix),
          ...session.offeredRoutes.flatMap((text) => parsePrefix(text) ?? []),
        ],
      }));
  }

  #update(policy: Policy, world: World): void {
    if (this.#compiler?.policy !== policy) {
      this.#compiler = new PolicyCompiler(policy, world.network);
      for (const identity of world.identities.values()) this.#compiler.setIdentity(identity);
      this.#known = new Map();
    }
    for (const id of [...this.#known.keys()]) {
      if (world.sessions.has(id)) continue;
      this.#compiler.removeSession(id);
      this.#known.delete(id);
    }
    for (const session of world.sessions.values()) {
      if (this.#known.get(session.id) === session) continue;
      this.#compiler.setSession(world.identities.get(session.identity)!, session);
      this.#known.set(session.id, session);
    }
  }
}

function transitOf(compiled: CompiledPeer): DesiredState["transit"] {
  const routes = compiled.routes.flatMap((text) => (text.startsWith("host:") ? [] : [parsePrefix(text)!]));
  return [...compiled.serves.map((serve) => hostPrefix(serve.address)), ...routes];
}

export function holds(session: WorldSession, address: Address): boolean {
  const is = (own: Address): boolean =>
    own.w3 === address.w3 && own.w2 === address.w2 && own.w1 === address.w1 && own.w0 === address.w0;
  return session.addresses.some(is) || [...session.serviceAddresses.values()].some(is);
}
