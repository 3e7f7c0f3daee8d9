// What the mutation check takes the guards out of, and which tests should miss them, the likeliest first.

export interface MutatedSource {
  readonly file: string;
  readonly tests: readonly string[];
  /** Taken by `npm test`; the others by `npm run proof` alone. */
  readonly core?: boolean;
  /** Constants that hold a table of which each row is a guard. */
  readonly tables?: readonly string[];
}

const FILTER = [
  "test/filter/filter.test.ts",
  "test/filter/rules.test.ts",
  "test/filter/flow-model.test.ts",
  "test/filter/flow-table.test.ts",
];
const ENGINE = ["test/engine/inbound.test.ts", "test/engine/engine.test.ts", "test/engine/peer-link.test.ts"];
const DEVICE = [
  "test/wireguard/device.test.ts",
  "test/wireguard/tunnel.test.ts",
  "test/wireguard/handshake.test.ts",
  "test/wireguard/session.test.ts",
  "test/wireguard/handshake-flood.test.ts",
];
const JOINING = [
  "test/coordinator/refusals.test.ts",
  "test/coordinator/joining.test.ts",
  "test/coordinator/channel.test.ts",
  "test/coordinator/limits.test.ts",
  "test/coordinator/peers.test.ts",
  "test/coordinator/restart.test.ts",
  "test/coordinator/policy.test.ts",
];
const CONTROL = [
  "test/control/messages.test.ts",
  "test/coordinator/channel.test.ts",
  "test/peer/control-client.test.ts",
];

export const MUTATED: readonly MutatedSource[] = [
  // the filter
  { core: true, file: "src/filter/filter.ts", tests: FILTER },
  { file: "src/filter/flow-table.ts", tests: ["test/filter/flow-table.test.ts", ...FILTER] },
  { file: "src/filter/flow-index.ts", tests: ["test/filter/flow-table.test.ts", ...FILTER] },
  { file: "src/filter/flow-pages.ts", tests: ["test/filter/flow-table.test.ts", ...FILTER] },
  {
    file: "src/filter/rules.ts",
    tests: [...FILTER, "test/policy/never.test.ts", "test/policy/oracle.test.ts"],
  },
  { file: "src/filter/first-fragments.ts", tests: FILTER },
  { file: "src/filter/denials.ts", tests: FILTER },
  { file: "src/filter/flow-key.ts", tests: FILTER },
  { file: "src/wire/packet.ts", tests: ["test/wire/packet.test.ts", ...FILTER, "test/netstack/fragments.test.ts"] },
  // super-packets
  { file: "src/wire/split.ts", tests: ["test/wire/split.test.ts"] },
  { file: "src/wire/merge.ts", tests: ["test/wire/merge.test.ts"] },
  { file: "src/wire/mss-clamp.ts", tests: ["test/wire/mss-clamp.test.ts"] },
  { file: "src/wire/transport-place.ts", tests: ["test/wire/transport-place.test.ts"] },
  { core: true, file: "src/engine/inbound.ts", tests: ENGINE },
  {
    file: "src/engine/outbound.ts",
    tests: ["test/engine/outbound.test.ts", ...ENGINE, "test/engine/wg-engine.test.ts"],
  },
  { file: "src/engine/routes.ts", tests: ["test/engine/routes.test.ts", ...ENGINE] },
  // leases
  { file: "src/engine/lease-exchange.ts", tests: ["test/engine/lease-exchange.test.ts", ...ENGINE] },
  { file: "src/engine/link-service.ts", tests: ENGINE },
  { file: "src/engine/peer-link.ts", tests: ["test/engine/peer-link.test.ts", ...ENGINE] },
  { core: true, file: "src/control/lease.ts", tests: ["test/control/lease.test.ts"] },
  // the replay window, the mac checks and what stands around them
  { core: true, file: "src/wireguard/replay-window.ts", tests: ["test/wireguard/replay-window.test.ts"] },
  { file: "src/wireguard/cookies.ts", tests: ["test/wireguard/cookies.test.ts", ...DEVICE] },
  { file: "src/wireguard/rate-limiter.ts", tests: ["test/wireguard/rate-limiter.test.ts", ...DEVICE] },
  { file: "src/wireguard/handshake-gate.ts", tests: ["test/wireguard/handshake-flood.test.ts", ...DEVICE] },
  { file: "src/wireguard/handshake-work.ts", tests: ["test/wireguard/handshake-flood.test.ts", ...DEVICE] },
  { file: "src/wireguard/handshake.ts", tests: ["test/wireguard/handshake.test.ts", ...DEVICE] },
  { file: "src/wireguard/answer.ts", tests: DEVICE },
  { file: "src/wireguard/device.ts", tests: DEVICE },
  { file: "src/wireguard/tunnel.ts", tests: ["test/wireguard/tunnel.test.ts", ...DEVICE] },
  { file: "src/wireguard/session.ts", tests: ["test/wireguard/session.test.ts", ...DEVICE] },
  { file: "src/wireguard/staged-packets.ts", tests: ["test/wireguard/tunnel.test.ts", ...DEVICE] },
  { file: "src/wireguard/tai64n.ts", tests: ["test/wireguard/tai64n.test.ts", ...DEVICE] },
  { file: "src/io/ffi/readiness.ts", tests: ["test/io/ffi/readiness.test.ts"] },
  // what a gateway dials
  {
    file: "src/peer/dial-rules.ts",
    tests: ["test/peer/dial-rules.test.ts", "test/peer/gateway.test.ts"],
    tables: ["REFUSED"],
  },
  {
    file: "src/peer/gateway-offers.ts",
    tests: ["test/peer/gateway-offers.test.ts", "test/peer/gateway.test.ts"],
  },
  { file: "src/peer/forward-side.ts", tests: ["test/peer/forward-side.test.ts"] },
  { file: "src/peer/gateway-request.ts", tests: ["test/peer/gateway.test.ts", "test/peer/name-dial.test.ts"] },
  { file: "src/peer/name-dial.ts", tests: ["test/peer/name-dial.test.ts", "test/peer/gateway.test.ts"] },
  // what a host's resolver asks
  { file: "src/wire/dns-query.ts", tests: ["test/wire/dns-query.test.ts"] },
  { file: "src/peer/tun/overlay-names.ts", tests: ["test/peer/tun/overlay-names.test.ts"] },
  { file: "src/peer/tun/overlay-resolver.ts", tests: ["test/peer/tun/overlay-resolver.test.ts"] },
  { file: "src/peer/tun/host-dns.ts", tests: ["test/peer/tun/host-dns.test.ts"] },
  // what of a netmap the host gets
  { file: "src/peer/tun/badge-plan.ts", tests: ["test/peer/tun/badge-plan.test.ts"] },
  // tokens, enrolment and the control channel
  { file: "src/control/token.ts", tests: ["test/control/token.test.ts"] },
  {
    file: "src/coordinator/tokens.ts",
    tests: ["test/coordinator/admin.test.ts", "test/coordinator/refusals.test.ts", ...JOINING],
  },
  { file: "src/coordinator/enrolment.ts", tests: JOINING },
  {
    file: "src/coordinator/control-connection.ts",
    tests: ["test/coordinator/control-connection.test.ts", "test/coordinator/channel.test.ts", ...JOINING],
  },
  {
    file: "src/coordinator/revocation.ts",
    tests: ["test/coordinator/peers.test.ts", "test/coordinator/admin.test.ts", ...JOINING],
  },
  { file: "src/coordinator/epoch.ts", tests: ["test/coordinator/old-copy.test.ts", ...JOINING] },
  {
    file: "src/coordinator/continuity.ts",
    tests: ["test/coordinator/continuity.test.ts", "test/coordinator/old-copy.test.ts", ...JOINING],
  },
  {
    file: "src/coordinator/probe-server.ts",
    tests: ["test/coordinator/probe-server.test.ts", "test/coordinator/peers.test.ts", ...JOINING],
  },
  { file: "src/coordinator/source-limits.ts", tests: ["test/coordinator/limits.test.ts", ...JOINING] },
  { file: "src/control/noise-nk.ts", tests: ["test/control/noise-nk.test.ts", ...CONTROL] },
  { file: "src/control/channel.ts", tests: ["test/control/noise-nk.test.ts", ...CONTROL] },
  { file: "src/control/messages.ts", tests: CONTROL },
  { file: "src/control/netmap-codec.ts", tests: ["test/control/netmap-codec.test.ts", ...CONTROL] },
  { file: "src/control/probe.ts", tests: ["test/control/probe.test.ts", "test/coordinator/peers.test.ts"] },
  // whose badge a local program may use
  {
    file: "src/peer/local-listener.ts",
    tests: ["test/peer/local-listener.test.ts", "test/peer/socks5.test.ts", "test/peer/forward.test.ts"],
  },
  { file: "src/peer/owner.ts", tests: ["test/peer/owner.test.ts", "test/peer/socks5.test.ts"] },
  { file: "src/peer/local-api.ts", tests: ["test/peer/local-api.test.ts"] },
  {
    file: "src/peer/socks5-handshake.ts",
    tests: ["test/peer/socks5-handshake.test.ts", "test/peer/socks5.test.ts"],
  },
];
