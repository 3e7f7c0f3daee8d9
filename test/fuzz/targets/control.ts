// The control channel's formats: Noise messages, records, leases, probes, tokens.

import { concatBytes, writeU16 } from "../../../src/base/bytes.ts";
import { WirebadgeError } from "../../../src/base/errors.ts";
import { randomBytes, SeededRandom } from "../../../src/base/random.ts";
import { inContext } from "../../../src/control/contexts.ts";
import { LEASE_BYTES, type Lease, leaseVerdict, signLease, verifyLease } from "../../../src/control/lease.ts";
import {
  type CoordinatorMessage,
  decodeCoordinatorRecord,
  decodePeerRecord,
  encodeBytesRecord,
  encodeJsonRecord,
  type PeerMessage,
} from "../../../src/control/messages.ts";
import { NK_MESSAGE_BYTES, NoiseInitiator, respond } from "../../../src/control/noise-nk.ts";
import {
  encodeProbe,
  encodeProbeAnswer,
  isProbe,
  openProbe,
  openProbeAnswer,
  PROBE_BYTES,
  probeId,
} from "../../../src/control/probe.ts";
import {
  checksumOf,
  formatJoinToken,
  formatSecretToken,
  isSecretToken,
  parseJoinToken,
  readJoinToken,
} from "../../../src/control/token.ts";
import { ip } from "../../wire/packets.ts";
import { FuzzCrypto } from "../fuzz-crypto.ts";
import { mutateJson } from "../mutate.ts";
import { bytesOf, type FuzzTarget, latin1, must, same, textOf } from "../target.ts";

const crypto = new FuzzCrypto();
const SEED = new Uint8Array(32).fill(1);
const SIGN_KEY = crypto.signPublicKey(SEED);
const SESSION = "s_0123456789abcdef";
const KEY = `${"A".repeat(43)}=`;
const SIGNATURE = `${"A".repeat(86)}==`;
const MAC = `${"A".repeat(22)}==`;

// --- Noise -----

const PROLOGUE = bytesOf("prologue");
const STATIC = { privateKey: new Uint8Array(32).fill(3), publicKey: crypto.publicKey(new Uint8Array(32).fill(3)) };
const initiator = (): NoiseInitiator => new NoiseInitiator(crypto, new SeededRandom(8), PROLOGUE, STATIC.publicKey);
const MESSAGE_1 = initiator().writeMessage1()!;
const ANSWER = respond(crypto, new SeededRandom(9), PROLOGUE, STATIC, MESSAGE_1);
if (typeof ANSWER === "string") throw new Error(ANSWER);
const MESSAGE_2 = ANSWER.message2;

function runMessage1(input: Uint8Array): string {
  const answer = respond(crypto, new SeededRandom(9), PROLOGUE, STATIC, input);
  if (typeof answer === "string") return answer;
  must(input.length === NK_MESSAGE_BYTES + answer.payload.length, "bytes that nothing covers");
  must(answer.message2.length === NK_MESSAGE_BYTES, "an odd answer");
  return answer.payload.length === 0 ? "answered" : "payload";
}

/** Only the one message of this handshake ends it. */
function runMessage2(input: Uint8Array): string {
  const own = initiator();
  own.writeMessage1();
  const read = own.readMessage2(input);
  if (typeof read === "string") return read;
  must(same(input, MESSAGE_2), "a message 2 of nobody was taken");
  return "taken";
}

// --- Records -----

const DENIAL = {
  id: "d_0123456789",
  atMs: 1,
  hop: "source",
  session: SESSION,
  source: "fd00::1",
  destination: "10.0.0.1",
  protocol: 6,
  destinationPort: 5_432,
  reason: "NEVER",
  ruleId: "grant-1",
  policyVersion: 3,
  revision: 4,
} as const;
const FLOW = {
  session: SESSION,
  opener: "remote",
  source: "fd00::1",
  destination: "10.0.0.1",
  protocol: 6,
  sourcePort: 4_000,
  destinationPort: 5_432,
  revision: 4,
  startedMs: 1,
  lastMs: 2,
  bytesIn: 3,
  bytesOut: 4,
} as const;
const OFFERS = { routes: ["10.0.0.0/8"], serves: ["*"] };

const PEER_MESSAGES: readonly PeerMessage[] = [
  { type: "hello", version: 1, signKey: KEY, signature: SIGNATURE, software: "fuzz" },
  {
    type: "enroll",
    token: "t_0123456789abcdef",
    secret: KEY,
    publicKey: KEY,
    proof: MAC,
    offers: OFFERS,
    endpoints: [],
  },
  { type: "resume", session: SESSION, publicKey: KEY, proof: MAC, offers: OFFERS, endpoints: ["192.0.2.1:51820"] },
  { type: "offers", ...OFFERS },
  { type: "endpoints", endpoints: ["[fd00::1]:51820"] },
  { type: "punch", session: SESSION },
  { type: "renew" },
  { type: "full" },
  { type: "ping", n: 5 },
  { type: "denials", records: [DENIAL] },
  { type: "flows", records: [FLOW] },
  { type: "leave" },
];

const COORDINATOR_MESSAGES: readonly CoordinatorMessage[] = [
  { type: "challenge", key: KEY },
  {
    type: "welcome",
    session: SESSION,
    identity: "agent:coder",
    signKey: KEY,
    epoch: 1,
    timeMs: 2,
    leaseMs: 3,
    probe: { id: "AAAAAAAAAAA=", key: KEY },
    software: "fuzz",
  },
  { type: "pong", n: 1, timeMs: 2 },
  { type: "punch", session: SESSION },
  { type: "left" },
  { type: "error", code: "NO_GRANT", message: "no", hint: "yes" },
];

const inRecord = (value: unknown): Uint8Array => concatBytes(Uint8Array.of(1), bytesOf(JSON.stringify(value) ?? ""));

function randomRecord(examples: readonly unknown[]): (random: SeededRandom) => Uint8Array {
  return (random) => {
    let value = random.pick(examples);
    for (let changes = random.below(4); changes > 0; changes--) value = mutateJson(value, random);
    return inRecord(value);
  };
}

/** What a schema gave is given back alike: nothing of it is read in two ways. */
function runPeerRecord(input: Uint8Array): string {
  const message = decodePeerRecord(input);
  if (typeof message === "string") return message;
  const again = decodePeerRecord(encodeJsonRecord(message));
  must(JSON.stringify(again) === JSON.stringify(message), "another message when sent on");
  return message.type;
}

function runCoordinatorRecord(input: Uint8Array): string {
  const record = decodeCoordinatorRecord(input);
  if (typeof record === "string") return record;
  if (record.kind !== "message") {
    must(same(record.bytes, input.subarray(1)), "other bytes");
    return record.kind;
  }
  const again = decodeCoordinatorRecord(encodeJsonRecord(record.message));
  must(JSON.stringify(again) === JSON.stringify(record), "another message when sent on");
  return record.message.type;
}

const DEEP = (open: string, close: string, bytes: number): Uint8Array =>
  concatBytes(Uint8Array.of(1), bytesOf(open.repeat(bytes / 2 / open.length) + close.repeat(bytes / 2 / open.length)));
/** As large as a peer's record may be (256 KiB): nested, and wide. */
const LONG_RECORDS = (): Uint8Array[] => [
  DEEP("[", "]", 262_000),
  DEEP('{"a":', "}", 262_000),
  inRecord({ type: "offers", routes: new Array(60_000).fill("a"), serves: [] }),
  inRecord(Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`key${i}`, i]))),
  inRecord({ type: "flows", records: new Array(1_000).fill(FLOW) }),
  inRecord({ type: "denials", records: new Array(20_000).fill({}) }),
];

// --- Leases and probes -----

const LEASE: Lease = { session: SESSION, epoch: 2, serial: 2 ** 40, issuedMs: 1_700_000_000_000, lifetimeMs: 300_000 };
const LEASE_BODY_BYTES = LEASE_BYTES - 64;

function resignLease(input: Uint8Array): Uint8Array {
  if (input.length !== LEASE_BYTES) return input;
  const body = input.slice(0, LEASE_BODY_BYTES);
  return concatBytes(body, crypto.sign(SEED, inContext("lease", body)));
}

function runLease(input: Uint8Array): string {
  const lease = verifyLease(crypto, SIGN_KEY, input);
  if (typeof lease === "string") return lease;
  must(same(signLease(crypto, SEED, lease), input), "another lease when signed again");
  const held = { ...LEASE, serial: LEASE.serial - 1 };
  const verdict = leaseVerdict(lease, SESSION, LEASE.epoch, held, 1_700_000_100_000);
  if (verdict === "accept") must(lease.session === SESSION && lease.serial > held.serial, "an older lease is accepted");
  return verdict;
}

const PROBE_KEY = { id: new Uint8Array(8).fill(4), key: new Uint8Array(32).fill(5) };
const SEEN = { address: ip("192.0.2.1"), port: 51_820 };

function remacProbe(input: Uint8Array): Uint8Array {
  if (input.length !== PROBE_BYTES) return input;
  const body = input.slice(0, 48);
  const context = body[1] === 1 ? "probe" : "probeAnswer";
  return concatBytes(body, crypto.mac(PROBE_KEY.key, inContext(context, body)));
}

function runProbe(input: Uint8Array): string {
  must(probeId(input) === undefined || isProbe(input), "an id of no probe");
  const sequence = openProbe(crypto, PROBE_KEY.key, input);
  const seen = openProbeAnswer(crypto, PROBE_KEY, 77, input);
  must(typeof sequence === "string" || typeof seen === "string", "question and answer in one");
  if (typeof sequence === "number") {
    must(Number.isSafeInteger(sequence), "an odd sequence");
    return "probe";
  }
  return typeof seen === "string" ? seen : `answer, ${sequence}`;
}

// --- Tokens -----

const TOKEN = formatJoinToken({
  url: "https://wirebadge.example.com:8443/net",
  coordinatorKey: new Uint8Array(32).fill(6),
  id: "t_0123456789abcdef",
  secret: new Uint8Array(32).fill(7),
});
const ADMIN_TOKEN = formatSecretToken("admin", new Uint8Array(10).fill(8), new Uint8Array(32).fill(9));

/** The checksum put right, so that what is inside is looked at. */
function resumToken(input: Uint8Array): Uint8Array {
  const text = latin1(input);
  const cut = text.lastIndexOf("_");
  return cut < 0 ? input : bytesOf(`${text.slice(0, cut)}_${checksumOf(text.slice(0, cut))}`);
}

function randomToken(random: SeededRandom): Uint8Array {
  const payload = concatBytes(Uint8Array.of(1, 0, 0), randomBytes(random, 74));
  const url = bytesOf(
    random.pick(["http://a", "https://[fd00::1]:8/x", "ftp://a", "http://u@a", "http://a?b", "http://", "x", "\u00ff"]),
  );
  writeU16(payload, 1, url.length + (random.chance(0.1) ? 1 : 0));
  return resumToken(bytesOf(`wb_join_${Buffer.from(concatBytes(payload, url)).toString("base64url")}_0`));
}

function runToken(input: Uint8Array): string {
  const text = textOf(input);
  const read = readJoinToken(text);
  const kind = isSecretToken("admin", text.trim()) ? " admin" : "";
  if (typeof read !== "string") {
    must(formatJoinToken(read) === text.trim(), "a second spelling of one token");
    return `read${kind}`;
  }
  try {
    parseJoinToken(text);
  } catch (error) {
    if (!(error instanceof WirebadgeError)) throw error;
    must(error.code === "TOKEN_INVALID" && error.hint !== undefined, "an error without a hint");
    const shown = error.message + error.hint;
    must(text.trim().length < 24 || !shown.includes(text.trim().slice(8, 24)), "the token stands in its error");
  }
  return read + kind;
}

export const CONTROL_TARGETS: readonly FuzzTarget[] = [
  {
    name: "noise-message-1",
    share: 30,
    maxBytes: 1_024,
    seeds: [MESSAGE_1, concatBytes(MESSAGE_1, new Uint8Array(9)), initiator().writeMessage1(bytesOf("payload"))!],
    run: runMessage1,
    reaches: ["answered", "payload", "noise-bad-length", "noise-forged"],
  },
  {
    name: "noise-message-2",
    share: 30,
    maxBytes: 1_024,
    seeds: [MESSAGE_2, new Uint8Array(48)],
    run: runMessage2,
    reaches: ["taken", "noise-bad-length", "noise-forged", "noise-low-order"],
  },
  {
    name: "peer-record",
    share: 20,
    maxBytes: 8_192,
    seeds: PEER_MESSAGES.map((message) => encodeJsonRecord(message)),
    make: randomRecord(PEER_MESSAGES),
    words: ['"type"', '"hello"', "null", "1e999", "[", "{", "\\u0000", "__proto__"],
    long: LONG_RECORDS,
    run: runPeerRecord,
    reaches: [...PEER_MESSAGES.map(({ type }) => type), "record-unknown-kind", "record-not-json", "record-bad-shape"],
  },
  {
    name: "coordinator-record",
    share: 20,
    maxBytes: 8_192,
    seeds: [
      ...COORDINATOR_MESSAGES.map((message) => encodeJsonRecord(message)),
      encodeBytesRecord(2, new Uint8Array(80)),
      encodeBytesRecord(3, new Uint8Array(80)),
      encodeBytesRecord(4, new Uint8Array(95)),
    ],
    make: randomRecord(COORDINATOR_MESSAGES),
    long: LONG_RECORDS,
    run: runCoordinatorRecord,
    reaches: [...COORDINATOR_MESSAGES.map(({ type }) => type), "netmap", "delta", "lease", "record-bad-shape"],
  },
  {
    name: "lease",
    share: 50,
    maxBytes: 256,
    seeds: [LEASE, { ...LEASE, epoch: 1 }, { ...LEASE, serial: 0 }, { ...LEASE, issuedMs: 0 }].map((lease) =>
      signLease(crypto, SEED, lease),
    ),
    repair: resignLease,
    run: runLease,
    reaches: [
      "accept",
      "lease-other-session",
      "lease-other-epoch",
      "lease-older",
      "lease-ended",
      "lease-bad-length",
    ].concat(["lease-bad-version", "lease-bad-signature"]),
  },
  {
    name: "probe",
    share: 50,
    maxBytes: 128,
    seeds: [encodeProbe(crypto, PROBE_KEY, 5), encodeProbeAnswer(crypto, PROBE_KEY, 77, SEEN)],
    repair: remacProbe,
    run: runProbe,
    reaches: ["probe", "answer, probe-not-a-probe", "probe-bad-length", "probe-bad-mac", "probe-unknown-key"].concat([
      "probe-other-sequence",
      "probe-not-a-probe",
    ]),
  },
  {
    name: "token",
    share: 30,
    maxBytes: 5_000,
    seeds: [TOKEN, ADMIN_TOKEN, "wb_join_", "wb_", "", ` ${TOKEN}\n`].map(bytesOf),
    make: randomToken,
    repair: resumToken,
    words: ["wb_join_", "wb_admin_", "_", "AAAA", "\n", " "],
    long: () => [
      bytesOf("_".repeat(4_096)),
      bytesOf(`wb_join_${"A".repeat(4_000)}_00000000`),
      bytesOf(" ".repeat(1_000_000)),
    ],
    run: runToken,
    reaches: [
      "read",
      "empty",
      "not-a-token",
      "wrong-kind",
      "wrong-kind admin",
      "truncated",
      "mistyped",
      "too-new",
      "bad-url",
    ],
  },
];
