// A gateway whose kernel forwards: what stands between the filter and the kernel, in the data thread. The same dial
// rules as those of the userspace gateway (dial-rules.ts) are judged for each packet out of a tunnel, by its
// destination; whatever is not of a served route stays out of the kernel, too. Verdicts are remembered for a second, so
// that a stream costs a comparison a packet, and an address that this machine has just got is soon one of its own.
import { type Address, makeAddress, makeV4, type Prefix, prefixContains } from "../base/address.ts";
import { readU16, readU32 } from "../base/bytes.ts";
import { SECOND_MS } from "../base/units.ts";
import { HEADER_DESTINATION_OPTIONS, HEADER_HOP_BY_HOP, HEADER_ROUTING, IPV6_HEADER_BYTES } from "../wire/ipv6.ts";
import { clampMss } from "../wire/mss-clamp.ts";
import { type DialRefusal, refuseDial } from "./dial-rules.ts";
import type { OwnInterfaces } from "./real-network.ts";

/** What the main thread tells of it, whole. */
export interface ForwardPlan {
  /** Own overlay addresses: packets to them are the host's own. */
  readonly ownAddresses: readonly Address[];
  /** Routes that this host offers and the coordinator has accepted. */
  readonly served: readonly Prefix[];
  /** The network's ULA /48 and IPv4 pool. */
  readonly overlay: readonly Prefix[];
  readonly mtuBytes: number;
}

/** The dial rules' reasons; "own-addresses-unknown" as the userspace gateway has it. */
export type ForwardRefusal = DialRefusal | "own-addresses-unknown" | "not-served" | "routing-header";

const SURROUNDINGS_MAX_MS = SECOND_MS;
const PLACES = 1_024; // a power of two
const UNKNOWN = 0;
const TO_HOST = 1;
const FORWARDED = 2;
const FIRST_REFUSAL = 3;
const TCP_IPV4_BYTES = 40; // headers without options (RFC 9293 §3.7.1)
const TCP_IPV6_BYTES = 60;
const EXTENSION_HEADERS_MAX = 8;

export class ForwardSide {
  readonly #interfaces: () => OwnInterfaces | undefined;
  #plan: ForwardPlan | undefined;
  #readMs = Number.NEGATIVE_INFINITY;
  #own: OwnInterfaces | undefined;
  readonly #keys = new Int32Array(4 * PLACES);
  readonly #verdicts = new Uint8Array(PLACES).fill(UNKNOWN);
  readonly #refusals: ForwardRefusal[] = [];

  constructor(interfaces: () => OwnInterfaces | undefined) {
    this.#interfaces = interfaces;
  }

  get isOn(): boolean {
    return this.#plan !== undefined;
  }

  /** Undefined: this host forwards nothing. */
  set(plan: ForwardPlan | undefined): void {
    this.#plan = plan;
    this.#verdicts.fill(UNKNOWN);
  }

  /**
   * Of a whole packet that the filter lets in and the userspace stack has no part in: why the kernel doesn't get it.
   * Undefined: it does; a SYN that is to be forwarded then offers no larger segments than the tunnel takes.
   */
  refusalOf(nowMs: number, buffer: Uint8Array, offset: number, length: number): ForwardRefusal | undefined {
    const plan = this.#plan;
    if (plan === undefined) return undefined;
    if (nowMs - this.#readMs >= SURROUNDINGS_MAX_MS) this.#readInterfaces(nowMs);
    const isV4 = buffer[offset]! >>> 4 === 4;
    const at = offset + (isV4 ? 16 : 24);
    const w0 = isV4 ? 0 : readU32(buffer, at) | 0;
    const w1 = isV4 ? 0 : readU32(buffer, at + 4) | 0;
    const w2 = isV4 ? 0xffff : readU32(buffer, at + 8) | 0;
    const w3 = readU32(buffer, isV4 ? at : at + 12) | 0;
    const verdict = this.#verdictOf(plan, w0, w1, w2, w3);
    if (verdict === TO_HOST) return undefined;
    if (verdict >= FIRST_REFUSAL) return this.#refusals[verdict - FIRST_REFUSAL];
    if (!isV4 && hasRoutingHeader(buffer, offset)) return "routing-header";
    this.clamp(buffer, offset, length);
    return undefined;
  }

  /** A SYN of either direction: hosts behind this one may never hear of the tunnel's MTU. */
  clamp(buffer: Uint8Array, offset: number, length: number): void {
    if (this.#plan === undefined) return;
    const headerBytes = buffer[offset]! >>> 4 === 4 ? TCP_IPV4_BYTES : TCP_IPV6_BYTES;
    clampMss(buffer, offset, length, this.#plan.mtuBytes - headerBytes);
  }

  #readInterfaces(nowMs: number): void {
    this.#own = this.#interfaces();
    this.#readMs = nowMs;
    this.#verdicts.fill(UNKNOWN);
  }

  #verdictOf(plan: ForwardPlan, w0: number, w1: number, w2: number, w3: number): number {
    const hash = Math.imul(w0 ^ Math.imul(w1, 31) ^ Math.imul(w2, 961) ^ w3, 0x9e3779b1);
    const place = (hash >>> 16) & (PLACES - 1);
    const keys = this.#keys;
    const at = 4 * place;
    const known = this.#verdicts[place]!;
    const isSame = keys[at] === w0 && keys[at + 1] === w1 && keys[at + 2] === w2 && keys[at + 3] === w3;
    if (known !== UNKNOWN && isSame) return known;
    const verdict = this.#judge(plan, isMapped(w0, w1, w2) ? makeV4(w3) : makeAddress(w0, w1, w2, w3));
    keys[at] = w0;
    keys[at + 1] = w1;
    keys[at + 2] = w2;
    keys[at + 3] = w3;
    this.#verdicts[place] = verdict;
    return verdict;
  }

  #judge(plan: ForwardPlan, address: Address): number {
    const { ownAddresses, overlay, served } = plan;
    if (
      ownAddresses.some(
        (own) => own.w3 === address.w3 && own.w2 === address.w2 && own.w1 === address.w1 && own.w0 === address.w0,
      )
    )
      return TO_HOST;
    if (this.#own === undefined) return this.#refused("own-addresses-unknown");
    const around = { ownAddresses: this.#own.addresses, broadcasts: this.#own.broadcasts, overlay };
    const refusal = refuseDial(address, around, "none");
    if (refusal !== undefined) return this.#refused(refusal);
    return served.some((prefix) => prefixContains(prefix, address)) ? FORWARDED : this.#refused("not-served");
  }

  #refused(refusal: ForwardRefusal): number {
    const known = this.#refusals.indexOf(refusal);
    return FIRST_REFUSAL + (known >= 0 ? known : this.#refusals.push(refusal) - 1);
  }
}

const isMapped = (w0: number, w1: number, w2: number): boolean => w0 === 0 && w1 === 0 && w2 === 0xffff;

/** It names further destinations, which nobody judges (RFC 8200 §4.4, RFC 8754). */
function hasRoutingHeader(buffer: Uint8Array, offset: number): boolean {
  let header = buffer[offset + 6]!;
  let at = offset + IPV6_HEADER_BYTES;
  for (let i = 0; i < EXTENSION_HEADERS_MAX; i++) {
    if (header === HEADER_ROUTING) return true;
    if (header !== HEADER_HOP_BY_HOP && header !== HEADER_DESTINATION_OPTIONS) return false;
    const next = readU16(buffer, at);
    header = next >>> 8;
    at += ((next & 0xff) + 1) * 8;
  }
  return true;
}
