// The local API's answers, shared by its server (the running peer) and its client (the CLI): HTTP/JSON over the unix
// socket peer.sock in the state folder. Times are Unix milliseconds by the peer's clock; addresses and endpoints are
// text.
import { z } from "zod";

/** The one value of the Host header that the server takes: a browser can't be made to send it. */
export const LOCAL_API_HOST = "wirebadge";
export const LOCAL_API_SOCKET = "peer.sock";

export const localPeerSchema = z.object({
  session: z.string().optional(), // none in `wg` mode
  identity: z.string().optional(),
  publicKey: z.string(),
  addresses: z.array(z.string()),
  prefixes: z.array(z.string()),
  endpoint: z.string().optional(), // the one in use
  path: z.enum(["direct", "relay", "none"]),
  lastHandshakeMs: z.number().optional(),
  rxBytes: z.number(),
  txBytes: z.number(),
});

export const localServiceSchema = z.object({
  name: z.string(),
  protocol: z.string(),
  /** As in the destination grammar: "5432,8000-8099", or "any". */
  ports: z.string(),
  addresses: z.array(z.string()),
  allowed: z.boolean(),
  /** Why not, and what would allow it; only for a service that this session may know of. */
  hint: z.string().optional(),
});

export const entryPointSchema = z.object({
  kind: z.enum(["socks5", "forward", "expose", "local-api"]),
  /** HOST:PORT, a socket's path, or the overlay port of an `expose`. */
  listen: z.string(),
  target: z.string().optional(),
  /**
   * Who may use it: the folder's owner, the peer's uid (and how that is asked), who knows the password, who the policy
   * allows.
   */
  protection: z.enum(["folder", "owner-sock-diag", "owner-proc", "credentials", "policy"]),
});

export const refusedOfferStatusSchema = z.object({ offer: z.string(), reason: z.string() });

export const statusSchema = z.object({
  version: z.string(),
  mode: z.enum(["coordinator", "wg"]),
  pid: z.number().int(),
  startedMs: z.number(),
  nowMs: z.number(),
  identity: z.string().optional(), // "agent:coder"
  sponsor: z.string().optional(),
  tags: z.array(z.string()),
  session: z.string().optional(),
  publicKey: z.string(),
  addresses: z.array(z.string()),
  listenPort: z.number().int(),
  network: z.object({ id: z.string(), name: z.string() }).optional(),
  coordinator: z.object({ url: z.string(), connected: z.boolean(), lastError: z.string().optional() }).optional(),
  /** The state folder can't be written: what is known goes on, but would be lost with the process. */
  stateProblem: z.string().optional(),
  policyVersion: z.number().int().optional(),
  epoch: z.number().int().optional(),
  revision: z.number().int().optional(),
  lease: z.object({ endMs: z.number(), remainingMs: z.number() }).optional(),
  crypto: z.object({ name: z.string(), reason: z.string() }),
  /** How datagrams are read and sent: "native", in batches, or "dgram", one by one, and then why. */
  udp: z.object({ name: z.string(), reason: z.string() }),
  /** How the owner of a local TCP client is found; "refused": it can't be, and such clients are refused. */
  ownerCheck: z.enum(["sock-diag", "proc", "refused"]),
  peers: z.array(localPeerSchema),
  services: z.array(localServiceSchema),
  /** What this peer serves as a gateway: "service:NAME" and CIDR or host patterns. */
  serving: z.array(z.string()),
  refusedOffers: z.array(refusedOfferStatusSchema),
  entryPoints: z.array(entryPointSchema),
  /** The TUN device, by which every process of the host wears this badge, and what the host reaches by it. */
  device: z.object({ name: z.string(), mtuBytes: z.number().int(), routes: z.array(z.string()) }).optional(),
  counters: z.record(z.string(), z.number()),
});

export const whoisSchema = z.object({
  /** As asked. */
  of: z.string(),
  session: z.string(),
  identity: z.string(),
  sponsor: z.string().optional(),
  tags: z.array(z.string()),
  addresses: z.array(z.string()),
  publicKey: z.string().optional(),
  /** "address": an overlay address of it; "dialled": the source of a socket that this gateway dialled for it. */
  via: z.enum(["address", "dialled"]),
  /** For "dialled": where the caller's flow was opened to. */
  destination: z.string().optional(),
});

export const canSchema = z.object({
  destination: z.string(),
  allowed: z.boolean(),
  reason: z.string(),
  ruleId: z.string().optional(),
  policyVersion: z.number().int().optional(),
  revision: z.number().int().optional(),
  hint: z.string().optional(),
});

export const denialSchema = z.object({
  id: z.string(),
  atMs: z.number(),
  hop: z.enum(["source", "destination"]),
  session: z.string().optional(),
  identity: z.string().optional(),
  source: z.string().optional(),
  /** An address, or the name that was asked for. */
  destination: z.string(),
  protocol: z.string(),
  port: z.number().int().optional(),
  reason: z.string(),
  ruleId: z.string().optional(),
  policyVersion: z.number().int().optional(),
  revision: z.number().int().optional(),
  hint: z.string().optional(),
});

export const denialsSchema = z.object({ denials: z.array(denialSchema) }); // newest last

export const pingRequestSchema = z.strictObject({ name: z.string().min(1).max(255) });

export const pingSchema = z.object({
  name: z.string(),
  address: z.string(),
  identity: z.string().optional(),
  rttMs: z.number(),
  endpoint: z.string().optional(),
  path: z.enum(["direct", "relay", "none"]),
});

/** RFC 9457, with the catalogue's code and hint. */
export const problemSchema = z.object({
  type: z.string(),
  title: z.string(),
  status: z.number().int(),
  code: z.string(),
  hint: z.string().optional(),
});

export type LocalPeer = z.infer<typeof localPeerSchema>;
export type LocalService = z.infer<typeof localServiceSchema>;
export type EntryPoint = z.infer<typeof entryPointSchema>;
export type Status = z.infer<typeof statusSchema>;
export type Whois = z.infer<typeof whoisSchema>;
export type Can = z.infer<typeof canSchema>;
export type Denial = z.infer<typeof denialSchema>;
export type Denials = z.infer<typeof denialsSchema>;
export type PingRequest = z.infer<typeof pingRequestSchema>;
export type Ping = z.infer<typeof pingSchema>;
export type Problem = z.infer<typeof problemSchema>;

/** What the running peer answers with; each may throw a WirebadgeError, which becomes a problem. */
export interface LocalApiHost {
  status(): Status | Promise<Status>;
  /** Of an overlay address, or of the source IP:PORT of a socket that this gateway dialled. @throws NOT_FOUND */
  whois(of: string): Whois;
  /** About this session itself. @throws USAGE when the destination can't be read */
  can(destination: string): Can;
  denials(): Denials;
  /** @throws NOT_FOUND, NO_GRANT, TIMEOUT */
  ping(name: string, signal: AbortSignal): Promise<Ping>;
}

/** `GET path` answers with the schema; the one POST is ping. */
export const LOCAL_API_PATHS = {
  status: "/v1/status",
  whois: "/v1/whois", // ?of=
  can: "/v1/can", // ?dest=
  denials: "/v1/denials",
  ping: "/v1/ping",
} as const;
