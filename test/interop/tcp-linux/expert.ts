// What tshark's expert analysis says of a capture, less what is no error. A capture is taken at the stack's own end of
// the wire: all that the stack sent is in it, and all that it received, so that whoever acknowledges what isn't in the
// capture acknowledges what was never sent (or never came).
import { spawn } from "node:child_process";
import { requireTool } from "../../needs.ts";

/** What happens on a link or is done in a case, and makes more of the notes legitimate. */
export type Circumstance =
  | "gaps"
  | "late segments"
  | "duplicates"
  | "resets"
  | "closed windows"
  | "cut again"
  | "forgeries"
  | "fragments"
  | "keepalive";

interface Allowed {
  readonly note: RegExp;
  readonly when: "always" | Circumstance;
  readonly from?: "stack" | "kernel";
  readonly why: string;
}

const KEEPALIVE = /^(TCP keep-alive segment|ACK to a TCP keep-alive segment)$/;
const QUOTE_CUT_SHORT = /^Bad checksum/;

const ALLOWED: readonly Allowed[] = [
  { note: /^Connection (establish|finish)/, when: "always", why: "SYN and FIN, told as news" },
  { note: /the connection closing$/, when: "always", why: "which FIN was first" },
  { note: /^TCP window update$/, when: "always", why: "the reader has read" },
  { note: /window specified by the receiver is now completely full/, when: "always", why: "a sender uses it all" },
  {
    note: /^This frame is a \(suspected\) (fast |spurious )?retransmission$/,
    when: "always",
    why: "loss, or a busy machine",
  },
  { note: /^Duplicate ACK/, when: "always", why: "the answer to a gap or to a segment that came twice" },
  { note: /^D-SACK Sequence$/, when: "always", why: "what came twice is named (RFC 2883)" },
  { note: /^Previous segment\(s\) not captured/, when: "gaps", why: "lost or late on its way to the stack" },
  {
    note: /^This frame is a \(suspected\) out-of-order segment$/,
    when: "gaps",
    why: "late, or sent again into the gap",
  },
  {
    note: /^This frame is a \(suspected\) out-of-order segment$/,
    when: "duplicates",
    why: "sent again for three acknowledgments that were one",
  },
  {
    note: /^TCP Checksum 0xffff instead of 0x0000/,
    when: "always",
    from: "kernel",
    why: "skb_checksum_help writes both zeros so",
  },
  { note: /^A new tcp session is started with the same ports/, when: "duplicates", why: "a SYN that came twice" },
  { note: /^Connection reset \(RST\)/, when: "resets", why: "the case asks for them" },
  { note: /^Connection reset \(RST\)/, when: "late segments", why: "one came to a port whose connection has ended" },
  {
    note: /^TCP (Zero Window segment|Zero Window Probe|Zero Window Probe ACK)$/i,
    when: "closed windows",
    why: "the case closes them",
  },
  { note: /^ACK to a TCP Zero Window Probe$/, when: "closed windows", why: "the case closes them" },
  {
    note: /^ACKed segment that wasn't captured/,
    when: "cut again",
    from: "kernel",
    why: "tshark doesn't count new bytes behind old ones: a probe's byte, or a segment cut smaller",
  },
  { note: KEEPALIVE, when: "closed windows", why: "how Linux probes: with an old sequence number" },
  { note: KEEPALIVE, when: "keepalive", why: "the case waits for them" },
  { note: /./, when: "forgeries", from: "kernel", why: "forged under its address; what counts is the stack's answer" },
  {
    note: /^(ACKed segment that wasn't captured|This frame is a \(suspected\) out-of-order)/,
    when: "forgeries",
    from: "stack",
    why: "tshark takes the forged numbers for the kernel's",
  },
];

export interface Finding {
  readonly note: string;
  readonly from: "stack" | "kernel";
  readonly frames: readonly number[];
}

const FIELDS = ["frame.number", "ip.src", "ipv6.src", "_ws.expert.message", "icmp.type", "icmpv6.type"];

function tshark(capture: string): Promise<string> {
  const checks = ["tcp.check_checksum:TRUE", "ip.check_checksum:TRUE", "udp.check_checksum:TRUE"];
  const plain = ["-d", "tcp.port==7000-7999,data"]; // random bytes look like this or that protocol
  const args = [
    "-r",
    capture,
    ...plain,
    ...checks.flatMap((check) => ["-o", check]),
    "-Y",
    "_ws.expert",
    "-T",
    "fields",
  ];
  const child = spawn(requireTool("tshark"), [
    ...args,
    ...FIELDS.flatMap((field) => ["-e", field]),
    "-E",
    "aggregator=|",
  ]);
  let out = "";
  let complaint = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (complaint += text));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => (code === 0 ? resolve(out) : reject(new Error(`tshark: ${complaint}`))));
  });
}

/** All that tshark remarks and nothing allows, under these circumstances. */
export async function findings(
  capture: string,
  stack: readonly string[],
  circumstances: readonly Circumstance[],
): Promise<Finding[]> {
  const found = new Map<string, Finding & { frames: number[] }>();
  for (const line of (await tshark(capture)).split("\n").filter(Boolean)) {
    const [frame, v4, v6, messages, icmp, icmpv6] = line.split("\t");
    const source = (v4 || v6 || "").split("|")[0] ?? "";
    const from = stack.includes(source) ? "stack" : "kernel";
    const isQuoting = from === "kernel" && Boolean(icmp || icmpv6);
    for (const note of (messages ?? "").split("|")) {
      if (isQuoting && QUOTE_CUT_SHORT.test(note)) continue; // the segment in an ICMP error, not the error itself
      const isAllowed = ALLOWED.some(
        (allowed) =>
          allowed.note.test(note) &&
          (allowed.when === "always" || circumstances.includes(allowed.when)) &&
          (allowed.from === undefined || allowed.from === from),
      );
      if (isAllowed) continue;
      const key = `${from}: ${note}`;
      const known = found.get(key) ?? { note, from, frames: [] };
      known.frames.push(Number(frame));
      found.set(key, known);
    }
  }
  return [...found.values()];
}
