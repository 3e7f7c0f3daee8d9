// Names in `wg` mode: the file's DNS servers, asked through the tunnel, never the host's own. Random id and port, every
// server in turn, twice; an answer counts only from the server and to the question asked.
import { clearTimeout, setTimeout } from "node:timers";
import { type Address, equalEndpoint, isV4 } from "../base/address.ts";
import { DIAL_ADDRESSES_MAX } from "../base/limits.ts";
import { type Random, randomBelow, randomU32 } from "../base/random.ts";
import { SECOND_MS } from "../base/units.ts";
import type { Netstack, UdpSocket } from "../netstack/contract.ts";
import {
  DNS_PORT,
  DNS_TYPE_A,
  DNS_TYPE_AAAA,
  type DnsAnswer,
  type DnsQuestion,
  decodeDnsAnswer,
  encodeDnsQuestion,
} from "../wire/dns.ts";
import { parseHostName } from "./host-name.ts";
import type { NameResolver } from "./overlay.ts";
import type { Turns } from "./turns.ts";

const TRY_MAX_MS = 2 * SECOND_MS;
const ROUNDS = 2;
const PORT_FIRST = 16_384;
const PORT_TRIES = 8;

type Outcome = Exclude<DnsAnswer, { kind: "dropped" }> | { readonly kind: "silent" };

export interface OverlayDnsOptions {
  readonly stack: Pick<Netstack, "bindUdp">;
  readonly turns: Turns;
  readonly localAddressFor: (remote: Address) => Address | undefined;
  readonly servers: readonly Address[];
  readonly searchDomains: readonly string[];
  readonly random: Random;
  readonly tryMaxMs?: number;
}

export class OverlayDns implements NameResolver {
  readonly counters: Record<string, number> = {};
  readonly #options: OverlayDnsOptions;

  constructor(options: OverlayDnsOptions) {
    this.#options = options;
  }

  async resolve(name: string, signal: AbortSignal): Promise<readonly Address[]> {
    for (const candidate of this.#candidates(name)) {
      const [v6, v4] = await Promise.all([
        this.#ask(candidate, DNS_TYPE_AAAA, signal),
        this.#ask(candidate, DNS_TYPE_A, signal),
      ]);
      // An address of a family that this end has none of can't be dialled.
      const usable = [...v6, ...v4].filter((address) => this.#options.localAddressFor(address) !== undefined);
      if (usable.length > 0) return usable.slice(0, DIAL_ADDRESSES_MAX);
    }
    return [];
  }

  /** A name without a dot is tried in the search domains first, any other as it is first. */
  #candidates(name: string): readonly string[] {
    const searched = this.#options.searchDomains
      .map((domain) => parseHostName(`${name}.${domain}`))
      .filter((candidate) => candidate !== undefined);
    return name.includes(".") ? [name, ...searched] : [...searched, name];
  }

  async #ask(name: string, type: DnsQuestion["type"], signal: AbortSignal): Promise<readonly Address[]> {
    for (let round = 0; round < ROUNDS; round++) {
      for (const server of this.#options.servers) {
        if (signal.aborted) return [];
        const outcome = await this.#exchange(server, name, type, signal);
        if (outcome.kind === "addresses") return outcome.addresses;
        if (outcome.kind === "none") return [];
        this.#count(`dns-${outcome.kind}`);
      }
    }
    return [];
  }

  #exchange(server: Address, name: string, type: DnsQuestion["type"], signal: AbortSignal): Promise<Outcome> {
    const { turns, random } = this.#options;
    const question: DnsQuestion = { id: randomU32(random) & 0xffff, name, type };
    const remote = { address: server, port: DNS_PORT };
    const socket = this.#bind(server);
    if (socket === undefined) return Promise.resolve({ kind: "silent" });
    return new Promise((resolve) => {
      const finish = (outcome: Outcome): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", onAbort);
        socket.close();
        resolve(outcome);
      };
      const onAbort = (): void => finish({ kind: "silent" });
      const timer = setTimeout(onAbort, this.#options.tryMaxMs ?? TRY_MAX_MS);
      signal.addEventListener("abort", onAbort, { once: true });
      socket.onError = onAbort;
      socket.onDatagram = (from, bytes) => {
        const answer: DnsAnswer = equalEndpoint(from, remote)
          ? decodeDnsAnswer(bytes, question)
          : { kind: "dropped", drop: "other-question" };
        if (answer.kind === "dropped") this.#count(`dns-drop-${answer.drop}`);
        else finish(answer);
      };
      const sent = turns.turn((nowMs) => socket.send(nowMs, remote, encodeDnsQuestion(question)));
      if (!sent) onAbort();
    });
  }

  /** A port that an off-path sender has to guess, too (RFC 5452 §9.2). */
  #bind(server: Address): UdpSocket | undefined {
    const { stack, random, localAddressFor } = this.#options;
    const address = localAddressFor(server);
    if (address === undefined) {
      this.#count(isV4(server) ? "dns-no-ipv4" : "dns-no-ipv6");
      return undefined;
    }
    for (let i = 0; i < PORT_TRIES; i++) {
      const port = PORT_FIRST + randomBelow(random, 65_536 - PORT_FIRST);
      const socket = stack.bindUdp({ address, port });
      if (socket !== undefined) return socket;
    }
    return undefined;
  }

  #count(name: string): void {
    this.counters[name] = (this.counters[name] ?? 0) + 1;
  }
}
