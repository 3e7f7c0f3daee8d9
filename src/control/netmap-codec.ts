// Netmaps and deltas as signed bytes, the application of deltas, and the check that turns entries into a NetmapView.
// One bad entry refuses the whole map, by the entry's name: half a netmap is a policy that nobody wrote.
import type { z } from "zod";
import { concatBytes, fromUtf8, utf8 } from "../base/bytes.ts";
import { type Crypto, SIGNATURE_BYTES } from "../crypto/provider.ts";
import { inContext } from "./contexts.ts";
import {
  ENTRY_SCHEMAS,
  type Netmap,
  type NetmapDelta,
  type NetmapEntries,
  type NetmapView,
  netmapDeltaSchema,
  netmapSchema,
} from "./netmap.ts";

export type NetmapDrop =
  | "netmap-truncated"
  | "netmap-bad-signature"
  | "netmap-not-json"
  | "netmap-bad-shape"
  | "delta-other-epoch"
  | "delta-gap";

/** Signature ‖ JSON. The session is signed too: one session's netmap is nothing to another. */
function signBytes(
  crypto: Crypto,
  seed: Uint8Array,
  context: "netmap" | "delta",
  session: string,
  value: unknown,
): Uint8Array {
  const bytes = utf8(JSON.stringify(value));
  return concatBytes(crypto.sign(seed, inContext(context, utf8(session), bytes)), bytes);
}

function openBytes(
  crypto: Crypto,
  signKey: Uint8Array,
  context: "netmap" | "delta",
  session: string,
  signed: Uint8Array,
): { readonly json: unknown } | NetmapDrop {
  if (signed.length <= SIGNATURE_BYTES) return "netmap-truncated";
  const bytes = signed.subarray(SIGNATURE_BYTES);
  const signature = signed.subarray(0, SIGNATURE_BYTES);
  if (!crypto.verify(signKey, inContext(context, utf8(session), bytes), signature)) return "netmap-bad-signature";
  const text = fromUtf8(bytes);
  if (text === undefined) return "netmap-not-json";
  try {
    return { json: JSON.parse(text) as unknown };
  } catch (error) {
    if (error instanceof SyntaxError) return "netmap-not-json";
    throw error;
  }
}

export function signNetmap(crypto: Crypto, seed: Uint8Array, session: string, netmap: Netmap): Uint8Array {
  return signBytes(crypto, seed, "netmap", session, netmap);
}

export function openNetmap(
  crypto: Crypto,
  signKey: Uint8Array,
  session: string,
  signed: Uint8Array,
): Netmap | NetmapDrop {
  const opened = openBytes(crypto, signKey, "netmap", session, signed);
  if (typeof opened === "string") return opened;
  const parsed = netmapSchema.safeParse(opened.json);
  return parsed.success ? parsed.data : "netmap-bad-shape";
}

export function signDelta(crypto: Crypto, seed: Uint8Array, session: string, delta: NetmapDelta): Uint8Array {
  return signBytes(crypto, seed, "delta", session, delta);
}

export function openDelta(
  crypto: Crypto,
  signKey: Uint8Array,
  session: string,
  signed: Uint8Array,
): NetmapDelta | NetmapDrop {
  const opened = openBytes(crypto, signKey, "delta", session, signed);
  if (typeof opened === "string") return opened;
  const parsed = netmapDeltaSchema.safeParse(opened.json);
  return parsed.success ? parsed.data : "netmap-bad-shape";
}

/** The netmap after the delta; a gap or another epoch means: ask for the whole map. */
export function applyDelta(netmap: Netmap, delta: NetmapDelta): Netmap | "delta-other-epoch" | "delta-gap" {
  if (delta.epoch !== netmap.epoch) return "delta-other-epoch";
  if (delta.fromRevision !== netmap.revision) return "delta-gap";
  const entries = new Map(Object.entries(netmap.entries));
  for (const key of delta.remove) entries.delete(key);
  for (const [key, value] of Object.entries(delta.set)) entries.set(key, value);
  return { epoch: delta.epoch, revision: delta.revision, entries: Object.fromEntries(entries) };
}

/** What turns `before` into `after`; undefined when they are equal. Values are compared as JSON text. */
export function diffEntries(
  before: NetmapEntries,
  after: NetmapEntries,
): { readonly set: NetmapEntries; readonly remove: string[] } | undefined {
  const set = Object.entries(after).filter(
    ([key, value]) => !Object.hasOwn(before, key) || JSON.stringify(before[key]) !== JSON.stringify(value),
  );
  const remove = Object.keys(before).filter((key) => !Object.hasOwn(after, key));
  return set.length === 0 && remove.length === 0 ? undefined : { set: Object.fromEntries(set), remove };
}

export interface BadEntry {
  /** Its key in the netmap. */
  readonly key: string;
  readonly message: string;
}

type Kind = keyof typeof ENTRY_SCHEMAS;
type Sorted = { [K in Kind]: z.infer<(typeof ENTRY_SCHEMAS)[K]>[] };

function isKind(kind: string): kind is Kind {
  return Object.hasOwn(ENTRY_SCHEMAS, kind);
}

/** Every entry checked and sorted, or the first that is wrong. `network`, `policy` and `self` must be there. */
export function toNetmapView(netmap: Netmap): NetmapView | BadEntry {
  const sorted: Record<string, unknown[]> = {};
  for (const kind of Object.keys(ENTRY_SCHEMAS)) sorted[kind] = [];
  for (const [key, value] of Object.entries(netmap.entries)) {
    const slash = key.indexOf("/");
    const kind = slash < 0 ? key : key.slice(0, slash);
    if (!isKind(kind)) return { key, message: "unknown kind of entry" };
    if (slash < 0 !== (kind === "network" || kind === "policy" || kind === "self")) return { key, message: "bad key" };
    const parsed = ENTRY_SCHEMAS[kind].safeParse(value);
    if (!parsed.success) return { key, message: parsed.error.issues[0]?.message ?? "bad entry" };
    const named = kind === "peer" || kind === "revoked" ? (parsed.data as { session: string }).session : undefined;
    if (named !== undefined && key !== `${kind}/${named}`) return { key, message: "is not the session that it names" };
    sorted[kind]!.push(parsed.data);
  }
  const by = sorted as Sorted;
  const [network, policy, self] = [by.network[0], by.policy[0], by.self[0]];
  if (network === undefined) return { key: "network", message: "missing" };
  if (policy === undefined) return { key: "policy", message: "missing" };
  if (self === undefined) return { key: "self", message: "missing" };
  return {
    epoch: netmap.epoch,
    revision: netmap.revision,
    network,
    policyVersion: policy.version,
    self,
    peers: by.peer,
    inbound: by.in,
    outbound: by.out,
    inboundHosts: by["in-host"],
    outboundHosts: by["out-host"],
    services: by.service,
    serves: by.serve,
    routes: by.route,
    hostRoutes: by["host-route"],
    refusedOffers: by["refused-offer"],
    revoked: by.revoked,
  };
}
