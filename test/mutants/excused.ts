// Guards that no test can miss, each with the reason: without them the outcome is the same. The mutation check fails
// when one of these is no longer in its file, or stands for more than one guard.

export interface Excuse {
  readonly file: string;
  /** The function or method that it stands in. */
  readonly inside: string;
  /** As the mutation check prints it. */
  readonly text: string;
  readonly reason: string;
}

export const EXCUSED: readonly Excuse[] = [
  {
    file: "src/peer/owner.ts",
    inside: "parseProcEndpoint",
    text: "(bytes.length !== 4 && bytes.length !== 16)",
    reason: "an address of another length is none that is asked for",
  },
  {
    file: "src/peer/owner.ts",
    inside: "parseProcEndpoint",
    text: "hexPort === undefined",
    reason: "for the compiler: no port is none that is asked for",
  },
  {
    file: "src/peer/owner.ts",
    inside: "findProcOwner",
    text: "!line.includes(port)",
    reason: "speed: the line would be read for nothing",
  },
  {
    file: "src/peer/owner.ts",
    inside: "open",
    text: 'platform !== "linux" || uid === undefined',
    reason: "of other systems than the tests run on",
  },
  {
    file: "src/peer/owner.ts",
    inside: "open",
    text: 'platform !== "linux"',
    reason: "of other systems than the tests run on",
  },
  {
    file: "src/peer/owner.ts",
    inside: "open",
    text: "uid === undefined",
    reason: "of other systems than the tests run on",
  },
  {
    file: "src/peer/owner.ts",
    inside: "open",
    text: "!(error instanceof WirebadgeError)",
    reason: "SockDiag.open throws nothing else: anything else would be a bug of ours",
  },
  {
    file: "src/peer/local-api.ts",
    inside: "#serve",
    text: "url === null",
    reason: "for the compiler: without a URL there is no route",
  },
  {
    file: "src/peer/local-api.ts",
    inside: "#serve",
    text: "response.destroyed",
    reason: "speed: what is sent to who has gone goes nowhere",
  },
  {
    file: "src/control/messages.ts",
    inside: "parseJson",
    text: "text === undefined",
    reason: "for the compiler: undefined is no JSON either",
  },
  {
    file: "src/control/netmap-codec.ts",
    inside: "openBytes",
    text: "text === undefined",
    reason: "for the compiler: undefined is no JSON either",
  },
  {
    file: "src/peer/local-listener.ts",
    inside: "guardFolder",
    text: "!stat.isDirectory()",
    reason: "no folder can be made there, or it is a link, whose mode is open to others",
  },
  {
    file: "src/coordinator/enrolment.ts",
    inside: "enroll",
    text: "identity === undefined || identity.removedMs !== undefined",
    reason: "who removes an identity revokes its tokens in the same change: they were refused before",
  },
  {
    file: "src/coordinator/enrolment.ts",
    inside: "enroll",
    text: "identity === undefined",
    reason: "a token is made with its identity, and no identity is ever deleted",
  },
  {
    file: "src/coordinator/enrolment.ts",
    inside: "enroll",
    text: "identity.removedMs !== undefined",
    reason: "who removes an identity revokes its tokens in the same change: they were refused before",
  },
  {
    file: "src/control/noise-nk.ts",
    inside: "decryptAndHash",
    text: "plaintext === undefined",
    reason: "undefined is returned all the same, and ends the handshake: nobody uses the state again",
  },
  {
    file: "src/control/noise-nk.ts",
    inside: "respond",
    text: "ee === undefined",
    reason: "for the compiler: an ephemeral key of low order was refused before",
  },
  {
    file: "src/wireguard/handshake.ts",
    inside: "consumeResponse",
    text: "ephemeralShared === undefined",
    reason: "for the compiler: an ephemeral key of low order leaves neither secret",
  },
  {
    file: "src/wireguard/handshake.ts",
    inside: "consumeResponse",
    text: "staticShared === undefined",
    reason: "for the compiler: an ephemeral key of low order leaves neither secret",
  },
  {
    file: "src/filter/flow-index.ts",
    inside: "find",
    text: "this.#pages.isTaken(last) && this.#isAt(last, words)",
    reason: "speed: the search would find the same row",
  },
  {
    file: "src/engine/link-service.ts",
    inside: "#handleLease",
    text: "lease === undefined",
    reason: "for the compiler: what was not verified is not accepted either",
  },
  {
    file: "src/wireguard/cookies.ts",
    inside: "checkMac2",
    text: "isAllZero(mac2)",
    reason: "speed: no cookie's mac is zero but by a chance of 2^-128",
  },
  {
    file: "src/wireguard/handshake-gate.ts",
    inside: "admit",
    text: "isIdle && !isStrict",
    reason: "speed: it would have a lane, and being alone go at once",
  },
  {
    file: "src/wireguard/device.ts",
    inside: "#receiveData",
    text: "entry === undefined",
    reason: "for the compiler: without an entry there is no session",
  },
  {
    file: "src/engine/lease-exchange.ts",
    inside: "hold",
    text: "this.#held.size === this.#held.capacity",
    reason: "speed: a full ring refuses the packet too, after it was copied",
  },
  {
    file: "src/control/token.ts",
    inside: "readJoinToken",
    text: "url === undefined",
    reason: "for the compiler: what is no text is no URL",
  },
  {
    file: "src/wire/split.ts",
    inside: "#beginSuper",
    text: "transportBytes < minBytes",
    reason: "nothing behind the packet is read; the header's own length would be refused all the same",
  },
  {
    file: "src/wire/merge.ts",
    inside: "#isSameFlow",
    text: "this.#hash[item] !== hash",
    reason: "speed: what the hash is made of is compared too",
  },
  {
    file: "src/wire/merge.ts",
    inside: "#isMergeable",
    text: "transportBytes < TCP_HEADER_BYTES",
    reason: "nothing behind the packet is read; a header of 20 bytes would leave no payload",
  },
  {
    file: "src/wire/merge.ts",
    inside: "#isHeadRight",
    text: "this.#count[item]! > 1",
    reason: "speed: the first packet's checksum would be verified again",
  },
  {
    file: "src/wire/mss-clamp.ts",
    inside: "areWellFormed",
    text: "i + 1 === end",
    reason: "nothing behind the header is read; any length there would lead out of it",
  },
  {
    file: "src/wire/transport-place.ts",
    inside: "placeInIpv6",
    text: "place + 8 > length",
    reason: "nothing behind the packet is read; any length there would lead out of it",
  },
  {
    file: "src/filter/filter.ts",
    inside: "#current",
    text: "flows.generation(row) === this.#generation && clockMs < rule.untilMs",
    reason: "speed: judging the flow again under the same state gives the same rule",
  },
  {
    file: "src/filter/filter.ts",
    inside: "#judgeKey",
    text: "fresh !== undefined && this.#clockMs < fresh.untilMs && !isTcpOpening(info)",
    reason: "speed: what follows says the same of it",
  },
  {
    file: "src/filter/flow-table.ts",
    inside: "touch",
    text: "state === before",
    reason: "speed: the same state would be written again",
  },
  {
    file: "src/filter/flow-table.ts",
    inside: "expire",
    text: "now < this.#soonestTick",
    reason: "speed: no flow is due before it",
  },
  {
    file: "src/filter/flow-table.ts",
    inside: "expire",
    text: "this.#size === 0",
    reason: "speed: the search would find nothing",
  },
  {
    file: "src/filter/rules.ts",
    inside: "of",
    text: "known !== undefined",
    reason: "speed: the same rules would be made again",
  },
  {
    file: "src/filter/rules.ts",
    inside: "#group",
    text: "known !== undefined",
    reason: "speed: a session would be in two groups of the same list, with the same rules between them",
  },
  {
    file: "src/filter/flow-key.ts",
    inside: "portsOf",
    text: "protocol !== PROTOCOL_ICMP && protocol !== PROTOCOL_ICMPV6",
    reason: "speed: no other protocol has a type that is an echo",
  },
  {
    file: "src/filter/flow-key.ts",
    inside: "portsOf",
    text: "!isRequest && !isEchoReply(info)",
    reason: "the decoder gives ports to TCP, UDP and echoes alone: they are 0 here anyway",
  },
  {
    file: "src/filter/denials.ts",
    inside: "earlier",
    text: "record === undefined",
    reason: "for the compiler: a place without a record has no fingerprint that is asked for",
  },
  {
    file: "src/peer/dial-rules.ts",
    inside: "refuseDial",
    text: "refusal === undefined",
    reason: "for the compiler: what is not refused is not among what is refused more strictly",
  },
  {
    file: "src/peer/dial-rules.ts",
    inside: "broadcastOf",
    text: "prefix.bits < V4_BITS_OFFSET",
    reason: "a prefix that short is no IPv4 prefix: its third word is cut",
  },
  {
    file: "src/peer/gateway-request.ts",
    inside: "#ask",
    text: "this.#asked",
    reason: "the reader asks only while nobody has asked, and the timer is cleared by whoever asks, and by the end",
  },
  {
    file: "src/coordinator/continuity.ts",
    inside: "#isAhead",
    text: "mark.epoch < world.epoch",
    reason: "speed: the change asks for the epoch again, and leaves everything as it is",
  },
  {
    file: "src/coordinator/control-connection.ts",
    inside: "close",
    text: 'this.#stage === "closed"',
    reason: "closing again closes nothing: the socket and the channel are closed once, the handler knows whom it lost",
  },
  {
    file: "src/coordinator/control-connection.ts",
    inside: "#sendRecord",
    text: 'this.#stage === "closed"',
    reason: "nobody sends to a connection that was detached",
  },
  {
    file: "src/coordinator/control-connection.ts",
    inside: "#sendRecord",
    text: 'this.#channel === undefined || this.#stage === "closed"',
    reason: "nobody sends to a connection before its channel is there, or after it was detached",
  },
  {
    file: "src/coordinator/control-connection.ts",
    inside: "#sendRecord",
    text: "this.#channel === undefined",
    reason: "nobody sends to a connection before its channel is there",
  },
  {
    file: "src/coordinator/control-connection.ts",
    inside: "#sendRecord",
    text: 'typeof messages === "string"',
    reason: "an open channel refuses only after more messages than anybody sends (test/control/noise-nk.test.ts)",
  },
  {
    file: "src/coordinator/control-connection.ts",
    inside: "#onRecord",
    text: 'this.#stage === "closed"',
    reason: "closing empties what waits, and nothing is put there after it",
  },
];
