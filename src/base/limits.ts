// Every bound on what the network or a user can make this program hold. Units last; the reason beside each.
import { HOUR_MS, KIB, MIB, MINUTE_MS, SECOND_MS } from "./units.ts";

// Packets
export const MTU_DEFAULT_BYTES = 1420; // 1500 − 40 (IPv6) − 8 (UDP) − 32 (WireGuard data message)
export const MTU_MIN_BYTES = 1280; // RFC 8200 §5
export const DATAGRAM_MAX_BYTES = 2048; // larger outer datagrams are dropped by name
export const PACKET_MAX_BYTES = 1952; // largest inner packet that fits one such datagram

// Super-packets of a TUN device with offloads
export const SPLIT_PIECES_MAX = 8_192; // of 65,495 bytes by 8: what TCP_MIN_SND_MSS leaves beside 40 bytes of options
export const MERGE_PACKETS_MAX = 4_096; // waiting to be merged and written; then those are written first
export const MERGE_VECTORS_MAX = 64; // packets in one: as many as one GSO send has, and UDP_GRO_CNT_MAX of Linux
export const MERGE_FLOWS_MAX = 256; // that can take one more packet; a flow beyond ends the one that began first

// WireGuard
export const STAGED_PACKETS_MAX = 128; // per peer, waiting for a handshake
export const PEERS_MAX = 20_000; // per engine
export const ALLOWED_IPS_MAX = 200_000; // prefixes over all peers
export const HANDSHAKES_WAITING_MAX = 1_024; // messages of each kind of sender; the one that waits longest gives way
export const HANDSHAKE_WAIT_MAX_MS = 5 * SECOND_MS; // REKEY_TIMEOUT: then its sender has asked anew
export const HANDSHAKE_SHARE_BUSY = 0.1; // of the time, while data flows
export const HANDSHAKE_SHARE_QUIET = 0.5; // the rest is for whatever else the thread does
export const HANDSHAKE_TURN_MS = 1; // of a turn: one message, or a part of one; the native provider does it in less
export const HANDSHAKE_LOAD_WAIT_MS = 100; // "under load": what waits will take longer than that
export const FORGED_RESPONSES_MAX = 8; // to one initiation; then only a sender that shows a cookie is heard
export const KNOWN_SOURCES_MAX = 20_000; // prefixes that peers of ours have shown themselves from: PEERS_MAX
export const COOKIES_PER_SECOND_MAX = 2_000; // replies to all sources together: each costs a seal and a datagram
export const RATE_LIMITER_SOURCES_MAX = 8_192; // source prefixes remembered

// Outer UDP port
export const UDP_BUFFER_BYTES = 8 * MIB; // of a socket that takes runs of datagrams, each direction, if allowed
export const UDP_RUN_SEGMENTS_MAX = 64; // UDP_MAX_SEGMENTS of kernels before 6.7
export const UDP_RUN_MAX_BYTES = 65_000; // one IPv4 datagram less headers, rounded down
export const UDP_RUNS_QUEUED_MAX = 64; // then they are sent
export const UDP_BURST_MESSAGES_MAX = 32; // read in one turn of the event loop, each of up to 64 datagrams
export const UDP_SEND_WAIT_MAX_MS = 20; // of one flush, for room in the socket's buffer
export const UDP_LOOP_SEND_WAIT_MAX_MS = 2; // the same where an event loop has others to serve
export const READS_FAIL_MAX_MS = 1_000; // without one that works: then a device or socket is taken for gone
export const UDP_NARROW_RUNS = 1_024; // sent without GSO to where a run was too wide, before it is tried again
export const ADDRESSES_REMEMBERED_MAX = 4_096; // in parsed form, of senders; then all are forgotten

// Data thread
export const DATA_THREAD_RESTARTS_MAX = 3; // within the window below; then the peer ends with the error
export const DATA_THREAD_RESTART_WINDOW_MS = MINUTE_MS;
export const DATA_EVENTS_MAX = 4_096; // told to the main thread and not yet taken by it; those beyond are counted
export const DATA_PROBES_MAX = 16; // answers to endpoint probes among them: anybody can send what looks like one
export const STACK_PACKETS_MAX = 2_048; // each way between data thread and userspace stack; those beyond are lost
export const KERNEL_CUTS_PER_ROUND_MAX = 1_024; // connections of the kernel; those beyond end when they next send
export const STACK_ECHOES_MAX = 64; // latest echo requests of the stack whose answers are for it and not the kernel

// Paths
export const PATH_CANDIDATES_MAX = 8; // endpoints tried at once for one peer
export const PATH_CONFIRMED_MS = 15 * SECOND_MS; // after that much silence an initiation tries every candidate again

export const FLOW_KEEPALIVE_MS = 25 * SECOND_MS; // of silence while flows live; NATs forget after 30 s at the earliest
export const ENDPOINT_RESOLVE_RETRY_MS = 5 * SECOND_MS; // of a configured endpoint's name
export const LOCAL_ENDPOINTS_MAX = 6; // of this machine's addresses, reported to the coordinator
export const PROBE_INTERVAL_MS = 20 * SECOND_MS; // below the 30 s that the shortest NAT mappings live
export const PROBE_RETRY_MS = 1 * SECOND_MS; // until the first answer

export const TIMESTAMP_RESERVE_MS = 10 * MINUTE_MS; // how far the stamp on disk runs ahead of the last one sent

// Leases on the peer link
export const LEASE_HELD_PACKETS_MAX = 16; // packets that overtook the lease
export const LEASE_HELD_MS = 500;
export const LEASE_SHOWN_WITHIN_MS = 5 * SECOND_MS; // of a new session; then nothing goes to a peer without one
export const LEASE_RESEND_FIRST_MS = 250; // doubled at each resend
export const LEASE_RESEND_MAX_MS = 8 * SECOND_MS;
export const LINK_REPLIES_PER_SECOND_MAX = 10; // acknowledgements and denials, per peer
export const LOCAL_REPLIES_MAX = 256; // ICMP errors and resets to our own stack, waiting for the turn's end
export const LOCAL_REPLIES_PER_SECOND_MAX = 1_000; // of them, with a burst of LOCAL_REPLIES_MAX; Linux allows as many

// Flows
export const FLOWS_MAX = 1_048_576; // per engine: 140 MB when all are there, a page at a time
export const FLOWS_PER_SESSION_MAX = 65_536; // one session can't push out the others'
export const FLOW_IDLE_TCP_MS = 2 * HOUR_MS;
export const FLOW_IDLE_TCP_OPENING_MS = 60 * SECOND_MS; // until the other end has answered
export const FLOW_IDLE_TCP_CLOSING_MS = 60 * SECOND_MS;
export const FLOW_IDLE_UDP_MS = 2 * MINUTE_MS;
export const FLOW_IDLE_ICMP_MS = 30 * SECOND_MS;
export const DENIALS_MAX = 1_024; // records kept per peer, oldest dropped
export const DENIAL_REPEAT_MS = SECOND_MS; // the same flow denied again within this is the same denial
export const DENIALS_PER_SECOND_MAX = 20; // recorded of one session; every one is counted
// idle flows judged again after a revision; busy ones at their next packet
export const FLOWS_REJUDGED_PER_TURN_MAX = 4_096;
export const FLOWS_ENDED_PER_TURN_MAX = 4_096; // of those idle for too long; the rest in the turns that follow
export const FIRST_FRAGMENTS_PER_SESSION_MAX = 64; // allowed first fragments whose later ones may follow

// Userspace TCP/IP
export const TCP_CONNECTIONS_MAX = 16_384; // per stack
export const TCP_CONNECTIONS_PER_REMOTE_MAX = 4_608; // opened by one address; more than a gateway takes of one session
export const TCP_BACKLOG_MAX = 512; // half-open or not yet accepted, per stack
export const TCP_BACKLOG_PER_REMOTE_MAX = 256; // of them from one address, so that one flood can't shut out the others
export const TCP_OPENING_MAX_MS = 30 * SECOND_MS; // a SYN that nobody decides on; above GATEWAY_DIAL_TIMEOUT_MS
export const TCP_CONNECT_MAX_MS = 180 * SECOND_MS; // RFC 9293 §3.8.3: R2 of a SYN, at least 3 minutes
export const TCP_ACCEPT_MAX_MS = 60 * SECOND_MS; // SYN-RECEIVED: a backlog place is not held longer
export const TCP_RETRANSMIT_MAX_MS = 120 * SECOND_MS; // RFC 9293 §3.8.3: R2, at least 100 s
export const TCP_TIME_WAIT_MS = 60 * SECOND_MS; // 2·MSL, with MSL = 30 s: no packet of a tunnel lives longer
export const TCP_TIME_WAIT_MAX = 4_096; // oldest forgotten first
export const TCP_KEEPALIVE_IDLE_MS = 15 * MINUTE_MS; // then probes, so that vanished ends don't fill the table
export const TCP_MEMORY_CHUNKS_MAX = 16_384; // of 16 KiB each: 256 MiB in all send buffers of a stack
export const TCP_RECEIVE_MEMORY_MAX_BYTES = 256 * MIB; // in all receive buffers of a stack; beyond: dropped
export const TCP_SEND_BUFFER_BYTES = 1 * MIB;
export const TCP_RECEIVE_BUFFER_BYTES = 1 * MIB;
/** What a connection's buffer may grow to where a fast and long path needs it. */
export const TCP_SEND_BUFFER_MAX_BYTES = 16 * MIB;
export const TCP_RECEIVE_BUFFER_MAX_BYTES = 16 * MIB;
export const TCP_OUT_OF_ORDER_SEGMENTS_MAX = 16_384; // per connection; overhead counts in all's memory
export const TCP_OUT_OF_ORDER_RANGES_MAX = 1_024; // per connection: of bytes without a gap between them
export const TCP_SEGMENTS_OUTSTANDING_MAX = 16_384; // per connection; then nothing new goes until some are acknowledged
export const UDP_SOCKETS_MAX = 16_384;
export const FRAGMENTS_DATAGRAMS_MAX = 64; // datagrams in reassembly per stack
export const FRAGMENTS_PER_SOURCE_MAX = 16; // of them from one address
export const FRAGMENTS_PER_DATAGRAM_MAX = 64; // 64 KiB in packets of 1,280 bytes are 54
export const FRAGMENTS_TIMEOUT_MS = 30 * SECOND_MS; // RFC 791, RFC 8200 §4.5 (60 s at most)
export const ECHOES_MAX = 1_024; // echo requests without an answer yet
export const ECHO_TIMEOUT_MS = 60 * SECOND_MS;
export const PATH_MTUS_MAX = 1_024; // destinations whose path is known to be narrower
export const PATH_MTU_LIFE_MS = 10 * MINUTE_MS; // RFC 1191 §6.3, RFC 8201 §4
export const ICMP_ERRORS_PER_SECOND_MAX = 100; // RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)

export const PING_TIMEOUT_MS = 5 * SECOND_MS;

// SDK
export const JOIN_TIMEOUT_MS = 30 * SECOND_MS; // unless said otherwise; a coordinator that starts beside it is there
export const OVERLAY_NAMES_REMEMBERED_MAX = 4_096; // that a program asked for; the oldest is forgotten
export const LEAVE_MAX_MS = 1 * SECOND_MS; // for the coordinator's word at the end; then the lease ends the session

// Control channel
export const CONTROL_RECORD_MAX_BYTES = 16 * MIB; // one record, over all its Noise messages
export const CONTROL_REQUEST_MAX_BYTES = 256 * KIB; // what a peer may send to the coordinator in one record
export const CONTROL_UNAUTHENTICATED_MAX_MS = 5 * SECOND_MS; // a WebSocket that proves nothing is closed
export const CONTROL_UNAUTHENTICATED_MAX = 8_192; // such sockets at once, per coordinator
export const CONTROL_SEND_QUEUE_MAX_BYTES = 32 * MIB; // per peer: beyond it the channel is closed and begins anew
export const CONTROL_HANDSHAKES_PER_SECOND_MAX = 200; // per IPv4 address or IPv6 /64: each costs curve operations
export const CONTROL_HANDSHAKES_BURST_MAX = 1_000; // a fleet behind one NAT comes back at once
export const CONTROL_SOURCES_MAX = 8_192; // such sources remembered
export const CONTROL_SESSIONS_CONNECTED_MAX = 20_000; // per coordinator
export const CONTROL_RECORDS_PER_SECOND_MAX = 200; // per channel, with a burst of twice that
export const CONTROL_RECORDS_WAITING_MAX = 64; // behind one that is being worked on, per channel
export const CONTROL_SILENCE_MAX_MS = 90 * SECOND_MS; // a channel without a record is closed by the coordinator
export const CONTROL_PING_EVERY_MS = 25 * SECOND_MS; // keeps NAT mappings and the learned time fresh
export const CONTROL_ANSWER_MAX_MS = 10 * SECOND_MS; // an unanswered request or ping: the peer begins a new channel
export const CONTROL_BACKOFF_MIN_MS = 250;
export const CONTROL_BACKOFF_MAX_MS = 30 * SECOND_MS;
export const OFFERS_MAX = 1_024; // routes and services that one session offers
export const SESSION_ENDPOINTS_MAX = 16; // outer endpoints that one session reports
export const RECORDS_PER_MESSAGE_MAX = 256; // flow or denial records in one control record
export const RECORDS_STORED_MAX = 1_000_000; // flow and denial records kept; the oldest go first
export const RECORDS_QUEUED_MAX = 16_384; // waiting for the next batch; beyond it they are counted and dropped
export const TOKEN_MAX_CHARACTERS = 4_096;
export const BOOKMARK_MAX_CHARACTERS = 256; // what a peer keeps for its coordinator, in base64
export const REVOCATIONS_KEPT_MAX = 512; // by a peer, the newest; below 64 KiB in one control record
export const REVOCATION_KEPT_MS = 30 * 24 * HOUR_MS; // and how old a backup may be whose restore they still undo
export const PROBES_PER_SECOND_MAX = 20; // answered per channel

// Gateways and local entry points
export const GATEWAY_DIALS_PER_SESSION_MAX = 256; // real dials in progress for one caller
export const GATEWAY_DIAL_TIMEOUT_MS = 10 * SECOND_MS;
export const GATEWAY_UDP_FLOWS_MAX = 4_096;
export const GATEWAY_UDP_FLOWS_PER_SESSION_MAX = 1_024; // one caller can't take them all
export const GATEWAY_UDP_QUEUE_DATAGRAMS_MAX = 64; // while the real socket opens, per flow
export const GATEWAY_TCP_FLOWS_PER_SESSION_MAX = 4_096; // each holds a file descriptor of the gateway
export const NAME_DIAL_REQUEST_MAX_MS = 5 * SECOND_MS; // from the connection's start to its whole request
export const OVERLAY_DIAL_TIMEOUT_MS = 15 * SECOND_MS; // longer than the gateway's own, so that its answer arrives
export const DIAL_ADDRESSES_MAX = 16; // of one name, tried in order
export const SILENT_GATEWAYS_MAX = 1_024; // remembered as not answering, per peer
export const SILENT_GATEWAY_MS = 30 * SECOND_MS; // for so long they are tried last
export const PROXY_CLIENTS_MAX = 4_096; // per local entry point
export const PROXY_HANDSHAKE_MAX_MS = 10 * SECOND_MS;
export const LOCAL_API_BODY_MAX_BYTES = 64 * KIB;
export const LOCAL_API_CLIENTS_MAX = 64; // connections at once
export const LOCAL_API_ANSWER_MAX_BYTES = 64 * MIB; // status of PEERS_MAX peers
export const STATE_FILE_MAX_BYTES = 64 * MIB; // with its cached netmap
export const WG_CONFIG_MAX_BYTES = 16 * MIB; // a `wg` mode configuration with its peers
export const ADMIN_API_BODY_MAX_BYTES = 2 * MIB;

// The host's network around a TUN device
export const HOST_COMMAND_MAX_MS = 30 * SECOND_MS; // one `ip` or `nft`: ALLOWED_IPS_MAX routes take a few seconds
export const HOST_COMMAND_OUTPUT_MAX_BYTES = 128 * MIB; // what it prints: ALLOWED_IPS_MAX routes as JSON
export const UAPI_REQUEST_MAX_BYTES = 32 * MIB; // PEERS_MAX peers with ALLOWED_IPS_MAX prefixes are 17 MB
export const UAPI_CLIENTS_MAX = 16; // connections at once; wg(8) makes one and closes it
export const UAPI_REQUEST_MAX_MS = 10 * SECOND_MS; // for a whole request, and for its answer to be taken
export const UNDO_JOURNAL_MAX_BYTES = 32 * MIB; // ALLOWED_IPS_MAX routes of a device that outlives the process

// Names under `up --tun`, asked by the host alone
export const RESOLVER_QUERY_MAX_BYTES = 1_232; // a name of 255 bytes with its EDNS options fits
export const RESOLVER_ADDRESSES_MAX = 256; // in one answer: 7 KiB by TCP; a name has one for each gateway or session
export const RESOLVER_CLIENTS_MAX = 64; // TCP connections at once; the one silent longest gives way
export const RESOLVER_CLIENT_IDLE_MS = 10 * SECOND_MS; // without a whole query (RFC 7766 §6.2.3: a few seconds)
export const RESOLVER_QUERIES_PER_TURN_MAX = 64; // of one connection, so that a flood doesn't hold up the rest

export const POOL4_KEPT_FROM_AGENTS = 1 / 4; // share of the IPv4 pool that is for nodes and users alone

// Policy
export const POLICY_MAX_BYTES = 1 * MIB;
export const POLICY_GRANTS_MAX = 10_000;
export const POLICY_NEVERS_MAX = 1_000;
export const POLICY_SERVICES_MAX = 10_000;
export const POLICY_ROUTES_MAX = 10_000;
export const POLICY_GROUPS_MAX = 10_000;
export const POLICY_TESTS_MAX = 1_000;
export const POLICY_LIST_MAX = 1_000; // entries of one list inside it: members, from, to, via, tags
export const POLICY_PORT_RANGES_MAX = 64; // of one destination
export const POLICY_ISSUES_MAX = 100; // reported at once
export const NAME_MAX_CHARACTERS = 63; // an RFC 1123 label
