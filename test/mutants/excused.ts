// Guards that no test can miss, each with the reason: without them the outcome is the same. The mutation check fails
// when one of these is no longer in its file.

export interface Excuse {
  readonly file: string;
  /** As the mutation check prints it. */
  readonly text: string;
  readonly reason: string;
}

export const EXCUSED: readonly Excuse[] = [
  {
    file: "src/filter/filter.ts",
    text: "flows.generation(row) === this.#generation && clockMs < rule.untilMs",
    reason: "speed: judging the flow again under the same state gives the same rule",
  },
  {
    file: "src/filter/flow-table.ts",
    text: "state === before",
    reason: "speed: the same state would be written again",
  },
  { file: "src/filter/flow-table.ts", text: "now < this.#soonestTick", reason: "speed: no flow is due before it" },
  { file: "src/filter/flow-table.ts", text: "this.#size === 0", reason: "speed: the search would find nothing" },
  { file: "src/filter/rules.ts", text: "known !== undefined", reason: "speed: the same rules would be made again" },
  {
    file: "src/filter/rules.ts",
    text: "addresses === undefined && hosts === undefined",
    reason: "memory alone: rules made of nothing deny everything too",
  },
  {
    file: "src/filter/flow-key.ts",
    text: "protocol !== PROTOCOL_ICMP && protocol !== PROTOCOL_ICMPV6",
    reason: "speed: no other protocol has a type that is an echo",
  },
  {
    file: "src/filter/flow-key.ts",
    text: "!isRequest && !isEchoReply(info)",
    reason: "the decoder gives ports to TCP, UDP and echoes alone: they are 0 here anyway",
  },
  {
    file: "src/filter/denials.ts",
    text: "record === undefined",
    reason: "for the compiler: a place without a record has no fingerprint that is asked for",
  },
  {
    file: "src/peer/dial-rules.ts",
    text: "refusal === undefined",
    reason: "for the compiler: what is not refused is not among what is refused more strictly",
  },
  {
    file: "src/peer/dial-rules.ts",
    text: "prefix.bits < V4_BITS_OFFSET",
    reason: "a prefix that short is no IPv4 prefix: its third word is cut",
  },
  {
    file: "src/coordinator/control-connection.ts",
    text: 'this.#stage === "closed"',
    reason: "closing again closes nothing, and nobody sends to a connection that was detached",
  },
  {
    file: "src/coordinator/control-connection.ts",
    text: 'this.#channel === undefined || this.#stage === "closed"',
    reason: "nobody sends to a connection before its channel is there, or after it was detached",
  },
  {
    file: "src/coordinator/control-connection.ts",
    text: "this.#channel === undefined",
    reason: "nobody sends to a connection before its channel is there",
  },
];
