// Messages outside and inside of tunnels: WireGuard's four, DNS, the peer link, name-dial, SOCKS5.
import { isV4, makeAddress } from "../../../src/base/address.ts";
import { concatBytes, readU16, utf8, writeU16, writeU32 } from "../../../src/base/bytes.ts";
import type { SeededRandom } from "../../../src/base/random.ts";
import { decodeLinkMessage, encodeDenial, encodeLease, encodeLeaseAck } from "../../../src/engine/peer-link.ts";
import {
  encodeNameDialAnswer,
  encodeNameDialRequest,
  NameDialAnswerReader,
  NameDialRequestReader,
} from "../../../src/peer/name-dial.ts";
import { Socks5Handshake, type Socks5Step } from "../../../src/peer/socks5-handshake.ts";
import {
  DNS_TYPE_A,
  DNS_TYPE_AAAA,
  type DnsQuestion,
  decodeDnsAnswer,
  encodeDnsQuestion,
} from "../../../src/wire/dns.ts";
import * as wireguard from "../../../src/wire/wireguard.ts";
import { type FuzzTarget, latin1, must, same } from "../target.ts";

// --- WireGuard -----

function message(type: number, length: number): Uint8Array {
  const bytes = Uint8Array.from({ length }, (_, i) => i * 7);
  bytes.set([type, 0, 0, 0]);
  return bytes;
}

/** Encoding what was decoded gives the same bytes, but for the macs. */
function runWireguard(input: Uint8Array): string {
  const buffer = concatBytes(Uint8Array.of(1, 2, 3), input, Uint8Array.of(4));
  const type = wireguard.classifyMessage(buffer, 3, input.length);
  if (typeof type === "string") return type;
  const macs = wireguard.macsOffset(input.length);
  switch (type) {
    case wireguard.TYPE_INITIATION:
      must(
        same(
          wireguard.encodeInitiation(wireguard.decodeInitiation(buffer, 3)).subarray(0, macs),
          input.subarray(0, macs),
        ),
        "another initiation",
      );
      return "initiation";
    case wireguard.TYPE_RESPONSE:
      must(
        same(wireguard.encodeResponse(wireguard.decodeResponse(buffer, 3)).subarray(0, macs), input.subarray(0, macs)),
        "another response",
      );
      return "response";
    case wireguard.TYPE_COOKIE_REPLY:
      must(same(wireguard.encodeCookieReply(wireguard.decodeCookieReply(buffer, 3)), input), "another cookie reply");
      return "cookie reply";
    default: {
      const header = new Uint8Array(16);
      const [low, high] = [wireguard.readDataCounterLow(buffer, 3), wireguard.readDataCounterHigh(buffer, 3)];
      wireguard.encodeDataHeader(header, 0, wireguard.readDataReceiver(buffer, 3), low, high);
      must(same(header, input.subarray(0, 16)), "another data header");
      return "data";
    }
  }
}

// --- DNS -----

const QUESTION: DnsQuestion = { id: 0x1234, name: "db.example.com", type: DNS_TYPE_A };
const QUESTION6: DnsQuestion = { id: 0x1234, name: "db.example.com", type: DNS_TYPE_AAAA };

function record(owner: Uint8Array, type: number, data: Uint8Array): Uint8Array {
  const head = new Uint8Array(10);
  writeU16(head, 0, type);
  writeU16(head, 2, 1);
  writeU32(head, 4, 60);
  writeU16(head, 8, data.length);
  return concatBytes(owner, head, data);
}

function dnsAnswer(question: DnsQuestion, records: readonly Uint8Array[], flags = 0x8180): Uint8Array {
  const asked = encodeDnsQuestion(question);
  const head = asked.slice(0, asked.length - 11); // without EDNS0
  writeU16(head, 2, flags);
  writeU16(head, 6, records.length);
  writeU16(head, 10, 0);
  return concatBytes(head, ...records);
}

const POINTER = Uint8Array.of(0xc0, 12);
const ALIAS = concatBytes(Uint8Array.of(3), utf8("www"), POINTER);
const DNS_SEEDS = [
  dnsAnswer(QUESTION, [record(POINTER, 1, Uint8Array.of(10, 0, 0, 1))]),
  dnsAnswer(QUESTION, [record(POINTER, 5, ALIAS), record(ALIAS, 1, Uint8Array.of(10, 0, 0, 2))]),
  dnsAnswer(QUESTION6, [record(POINTER, 28, new Uint8Array(16).fill(3))]),
  dnsAnswer(QUESTION, []),
  dnsAnswer(QUESTION, [], 0x8183),
  dnsAnswer(QUESTION, [], 0x8182),
  dnsAnswer(QUESTION, [], 0x8380),
];

/** All that a datagram of 64 KiB can hold of names made of pointers to pointers. */
function pointerChains(): Uint8Array {
  const bytes = new Uint8Array(65_535);
  bytes.set(dnsAnswer(QUESTION, []));
  writeU16(bytes, 6, 128);
  for (let at = 40; at + 2 < 0x3fff; at += 2) writeU16(bytes, at, 0xc000 | (at - 2));
  return bytes;
}

function runDns(input: Uint8Array): string {
  const outcomes = [QUESTION, QUESTION6].map((question) => {
    const answer = decodeDnsAnswer(input, question);
    if (answer.kind === "dropped") return answer.drop;
    if (answer.kind !== "addresses") return answer.kind;
    must(answer.addresses.length > 0 && answer.addresses.length <= 128, "how many addresses?");
    for (const address of answer.addresses) {
      if (question.type === DNS_TYPE_A) must(isV4(address), "not an IPv4 address");
      must(findWord(input, address.w3), "an address that is not in the answer");
    }
    return "addresses";
  });
  return outcomes.join();
}

function findWord(input: Uint8Array, word: number): boolean {
  for (let at = 0; at + 4 <= input.length; at++)
    if (((readU16(input, at) << 16) | readU16(input, at + 2)) >>> 0 === word) return true;
  return false;
}

// --- The peer link -----

const DENIAL = {
  id: "d_0123456789",
  reason: "NEVER" as const,
  policyVersion: 7,
  protocol: 6,
  sourcePort: 4_000,
  destinationPort: 5_432,
  destination: makeAddress(0xfd000000, 0, 0, 1),
};

function runLink(input: Uint8Array): string {
  const message = decodeLinkMessage(input);
  switch (message?.kind) {
    case "lease":
      must(same(encodeLease(message.lease), input), "another lease");
      return "lease";
    case "lease-ack":
      must(Number.isSafeInteger(message.serial), "a serial beyond 2^53");
      must(same(encodeLeaseAck(message.epoch, message.serial), input), "another acknowledgment");
      return "lease-ack";
    case "denial":
      must(same(encodeDenial(message.denial), input), "another denial");
      return `denial ${message.denial.reason}`;
    default:
      return "malformed";
  }
}

// --- Streams: the same message, however it is cut -----

interface Reader<T> {
  readonly want: number;
  add(bytes: Uint8Array): void;
  result(): T | undefined;
}

/** Feeds what it wants, in pieces of `step` bytes; undefined: it wants more than there is. */
function feed<T>(
  reader: Reader<T>,
  input: Uint8Array,
  step: number,
): { readonly read: T | undefined; readonly used: number } | undefined {
  let at = 0;
  for (let turns = 0; reader.want > 0; turns++) {
    must(turns <= input.length, "it never ends");
    if (at === input.length) return undefined;
    const part = input.subarray(at, at + Math.min(step, reader.want));
    reader.add(part);
    at += part.length;
  }
  return { read: reader.result(), used: at };
}

function runReader<T>(make: () => Reader<T>, encode: (value: T) => Uint8Array, input: Uint8Array): string {
  const [whole, bytewise] = [feed(make(), input, 1_024), feed(make(), input, 1)];
  must(JSON.stringify(whole) === JSON.stringify(bytewise), "read differently when cut");
  if (whole === undefined) return "wants more";
  if (whole.read === undefined) return "refused";
  must(same(encode(whole.read), input.subarray(0, whole.used)), "another message when encoded");
  return "read";
}

// --- SOCKS5 -----

const CREDENTIALS = { user: "ana", password: "secret" };

/** Every step of the handshake as text, fed in pieces of `step` bytes; what was left over at the end. */
function shake(input: Uint8Array, step: number, withPassword: boolean): string[] {
  const handshake = new Socks5Handshake(withPassword ? CREDENTIALS : undefined);
  const steps: string[] = [];
  for (let at = 0; at < input.length; at += step) {
    handshake.push(input.subarray(at, at + step));
    for (let one: Socks5Step | undefined = handshake.next(); one !== undefined; one = handshake.next()) {
      must(steps.length < 8, "steps without end");
      if (one.kind === "reply") steps.push(`reply ${latin1(one.bytes)}`);
      else if (one.kind === "fail") return [...steps, `fail ${one.reason}`, latin1(one.bytes)];
      else {
        const { host, port } = one.target;
        must(port > 0 && port < 65_536 && host.length > 0 && host.length <= 255, "an odd target");
        const rest = concatBytes(one.rest, input.subarray(at + step));
        return [...steps, "connect", `${host} ${port} ${latin1(rest)}`];
      }
    }
  }
  return [...steps, "waits", ""];
}

function runSocks5(input: Uint8Array): string {
  const outcomes = [false, true].map((withPassword) => {
    const whole = shake(input, input.length + 1, withPassword);
    must(whole.join() === shake(input, 1, withPassword).join(), "shaken differently when cut");
    return whole.at(-2);
  });
  return outcomes.join();
}

const socksRequest = (type: number, address: Uint8Array, command = 1): Uint8Array =>
  concatBytes(Uint8Array.of(5, 1, 0, 5, command, 0, type), address, Uint8Array.of(0, 80), utf8("GET"));
const withPassword = (input: Uint8Array): Uint8Array =>
  concatBytes(Uint8Array.of(5, 2, 0, 2, 1, 3), utf8("ana"), Uint8Array.of(6), utf8("secret"), input.subarray(3));

function randomSocks(random: SeededRandom): Uint8Array {
  const type = random.pick([1, 3, 4, 3, 9]);
  const address = new Uint8Array(type === 4 ? 16 : 4);
  random.fill(address);
  const name = concatBytes(Uint8Array.of(9), utf8("db.intern"));
  const request = socksRequest(type, type === 3 ? name : address, random.pick([1, 1, 1, 2, 3]));
  return random.chance(0.4) ? withPassword(request) : request;
}

export const WIRE_TARGETS: readonly FuzzTarget[] = [
  {
    name: "wireguard-messages",
    share: 80,
    maxBytes: 2_048,
    seeds: [message(1, 148), message(2, 92), message(3, 64), message(4, 32), message(4, 1_452)],
    run: runWireguard,
    reaches: ["initiation", "response", "cookie reply", "data", "UNKNOWN_TYPE", "WRONG_LENGTH"],
  },
  {
    name: "dns",
    share: 40,
    maxBytes: 65_535,
    seeds: DNS_SEEDS,
    long: () => [pointerChains()],
    run: runDns,
    reaches: [
      "addresses,other-question",
      "other-question,addresses",
      "none,other-question",
      "malformed,other-question",
    ],
  },
  {
    name: "peer-link",
    share: 60,
    maxBytes: 256,
    seeds: [encodeLease(new Uint8Array(95).fill(1)), encodeLeaseAck(1, 2 ** 40 + 5), encodeDenial(DENIAL)],
    run: runLink,
    reaches: ["lease", "lease-ack", "denial NEVER", "denial NO_GRANT", "malformed"],
  },
  {
    name: "name-dial-request",
    share: 40,
    maxBytes: 512,
    seeds: [encodeNameDialRequest({ name: "db.internal", port: 443 }), encodeNameDialRequest({ name: "a", port: 1 })],
    run: (input) => runReader(() => new NameDialRequestReader(), encodeNameDialRequest, input),
    reaches: ["read", "refused", "wants more"],
  },
  {
    name: "name-dial-answer",
    share: 40,
    maxBytes: 512,
    seeds: [
      encodeNameDialAnswer({ status: "connected", denialId: undefined }),
      encodeNameDialAnswer({ status: "denied", denialId: "d_0123456789" }),
    ],
    run: (input) => runReader(() => new NameDialAnswerReader(), encodeNameDialAnswer, input),
    reaches: ["read", "refused", "wants more"],
  },
  {
    name: "socks5",
    share: 30,
    maxBytes: 1_024,
    seeds: [
      socksRequest(1, Uint8Array.of(10, 0, 0, 1)),
      socksRequest(4, new Uint8Array(16).fill(1)),
      socksRequest(3, concatBytes(Uint8Array.of(4), utf8("host"))),
      withPassword(socksRequest(1, Uint8Array.of(10, 0, 0, 1))),
    ],
    make: randomSocks,
    run: runSocks5,
    reaches: [
      "connect,fail no-method",
      "fail no-method,connect",
      "waits,waits",
      "fail command-not-supported,fail no-method",
    ].concat(["fail no-method,fail bad-credentials", "fail not-socks5,fail not-socks5"]),
  },
];
