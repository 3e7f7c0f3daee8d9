// The rare ways of TCP between the userspace stack and the Linux kernel, each of which has broken somebody's stack:
// closed windows, both ends at once, forged segments and ICMP errors, floods, fragments.
import { beforeAll, describe, expect, it } from "vitest";
import { FRAGMENTS_PER_SOURCE_MAX, TCP_BACKLOG_MAX, TCP_BACKLOG_PER_REMOTE_MAX } from "../../src/base/limits.ts";
import { TCP_ACK, TCP_RST, TCP_SYN } from "../../src/wire/packet.ts";
import { Lab } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { type TcpFields, tcp } from "../wire/packets.ts";
import { Capture } from "./tcp-linux/capture.ts";
import type { EdgesOutcome, EdgesSpec, Group } from "./tcp-linux/edges.ts";
import { type Circumstance, type Finding, findings } from "./tcp-linux/expert.ts";
import { Captures, inWorld, rooms, sideBySide } from "./tcp-linux/lab.ts";
import { STACK } from "./tcp-linux/world.ts";

interface Way {
  readonly name: string;
  readonly group: Group;
  readonly spec: Pick<EdgesSpec, "faults" | "lossPercent" | "buffers">;
  readonly circumstances: readonly Circumstance[];
  /** Of the kernel, in its namespace. */
  readonly sysctls?: Readonly<Record<string, string>>;
}

const SMALL = { sendBytes: 65_536, receiveBytes: 20_000 };
const SMALL_KERNEL = { "net.ipv4.tcp_rmem": "4096 8192 8192", "net.ipv4.tcp_wmem": "4096 16384 16384" };

const WAYS: readonly Way[] = [
  {
    name: "closings",
    group: "closings",
    spec: { faults: { delayMs: 25 }, lossPercent: 0 },
    circumstances: ["resets", "keepalive"],
    sysctls: { "net.ipv4.tcp_keepalive_intvl": "1", "net.ipv4.tcp_keepalive_probes": "3" },
  },
  {
    name: "windows",
    group: "windows",
    spec: { faults: { delayMs: 1 }, lossPercent: 0, buffers: SMALL },
    circumstances: ["closed windows", "cut again"],
    sysctls: SMALL_KERNEL,
  },
  {
    name: "windows and loss",
    group: "windows",
    spec: { faults: { delayMs: 1 }, lossPercent: 5, buffers: SMALL },
    circumstances: ["closed windows", "cut again", "gaps", "late segments"],
    sysctls: SMALL_KERNEL,
  },
  {
    name: "attacks",
    group: "attacks",
    spec: { faults: { delayMs: 5 }, lossPercent: 0 },
    circumstances: ["resets", "forgeries"],
  },
  {
    name: "fragments",
    group: "fragments",
    spec: { faults: { delayMs: 2 }, lossPercent: 0 },
    circumstances: ["gaps", "late segments", "fragments"],
  },
  {
    name: "narrow",
    group: "narrow",
    spec: { faults: { delayMs: 5 }, lossPercent: 0 },
    circumstances: ["late segments", "gaps", "cut again"],
  },
];

const FAMILIES = ["v4", "v6"] as const;

describe.runIf(needs("netns", "tun", "nft", "tshark", "ping", "perl"))(
  "TCP between the stack and the Linux kernel",
  () => {
    const outcomes = new Map<string, EdgesOutcome>();
    const remarks = new Map<string, Finding[]>();
    const outOf = (way: string, name: string): unknown => outcomes.get(way)!.out[name];

    beforeAll(async () => {
      await using lab = new Lab();
      using captures = new Captures();
      const run = async (index: number): Promise<void> => {
        const { name, group, spec, circumstances, sysctls = {} } = WAYS[index]!;
        const capture = captures.path(name);
        const place = rooms(lab, `e${index}`);
        for (const [key, value] of Object.entries(sysctls)) place.host.setSysctl(key, value);
        outcomes.set(name, await inWorld(place, "edges.ts", { ...spec, group, capture, seed: index }, 200_000));
        remarks.set(name, await findings(capture, Object.values(STACK), circumstances));
      };
      await sideBySide([...WAYS.keys()], 4, run);
    }, 400_000);

    it.each(WAYS)("$name: the capture holds no protocol error", ({ name }) => {
      expect(outcomes.get(name)!.frames).toBeGreaterThan(100);
      expect(remarks.get(name)).toEqual([]);
    });

    for (const family of FAMILIES) {
      describe(`over ${family}`, () => {
        it("opened by both ends at once, the SYNs crossing: one connection, every byte", () => {
          const expected = { whole: [true, true], closed: "closed", crossed: true };
          expect(outOf("closings", `opened at once ${family}`)).toEqual(expected);
        });

        it("closed by both ends at once: both end in order", () => {
          const expected = { hadError: false, closed: "closed", fins: ["kernel", "stack"], received: 4 };
          expect(outOf("closings", `closed at once ${family}`)).toEqual(expected);
        });

        it("one direction ended, by either end: the other carries every byte", () => {
          const expected = { whole: true, closed: "closed" };
          expect(outOf("closings", `kernel ends first ${family}`)).toEqual(expected);
          expect(outOf("closings", `stack ends first ${family}`)).toEqual(expected);
        });

        it("reset by either end with bytes on their way: the other hears of it", () => {
          expect(outOf("closings", `reset ${family}`)).toEqual(["ECONNRESET", "reset"]);
        });

        it("idle: the stack answers Linux's keepalive", () => {
          const expected = { lost: "", received: 11, closed: "closed" };
          expect(outOf("closings", `keepalive ${family}`)).toEqual(expected);
        });

        it("urgent data stays in its place in the stream", () => {
          const expected = { text: "before!between?after", complaint: "", wasUrgent: true, closed: "closed" };
          expect(outOf("closings", `urgent ${family}`)).toEqual(expected);
        });

        for (const way of ["windows", "windows and loss"]) {
          it(`${way}: closed on both sides, then opened: every byte`, () => {
            const expected = { whole: [true, true], wasStuck: true, bothClosed: true };
            expect(outOf(way, `both stuck ${family}, kernel opens`)).toEqual(expected);
            expect(outOf(way, `both stuck ${family}, stack opens`)).toEqual(expected);
            expect(outOf(way, `sipping ${family}`)).toEqual({ whole: true, closed: "closed" });
          });
        }

        it("forged resets, SYNs, data and FINs that guess: challenged or dropped, every byte (RFC 5961)", () => {
          const expected = { whole: [true, true], closed: "closed" };
          expect(outOf("attacks", `forged to the stack ${family}`)).toEqual({ ...expected, challenged: true });
          expect(outOf("attacks", `forged to the kernel ${family}`)).toEqual(expected);
          expect(outOf("attacks", `an exact reset ${family}`)).toBe("reset");
        });

        it("forged ICMP errors end nothing; too big counts for what is outstanding (RFC 5927)", () => {
          const expected = { whole: [true, true], closed: "closed", largestUnmoved: 1420, cut: true, soft: true };
          expect(outOf("attacks", `forged errors ${family}`)).toEqual(expected);
        });

        it("cut into fragments, shuffled, doubled and overlapped: every byte", () => {
          const expected = { whole: [true, true], closed: "closed" };
          expect(outOf("fragments", `cut ${family}, kernel opens`)).toMatchObject(expected);
          expect(outOf("fragments", `cut ${family}, stack opens`)).toMatchObject(expected);
        });

        it("a narrower path: the router's word is believed, and nothing stalls", () => {
          const expected = { whole: true, inTime: true, closed: "closed" };
          expect(outOf("narrow", `narrow ${family}, kernel opens`)).toEqual(expected);
          expect(outOf("narrow", `narrow ${family}, stack opens`)).toEqual(expected);
        });
      });
    }

    it("a thousand at once, half of them opened by each end", () => {
      expect(outOf("closings", "a thousand")).toEqual({ right: 1_000, atOnce: true });
    });

    it("SYN floods are bounded; what runs goes on, others get in beside one flooder, then all", () => {
      expect(outOf("attacks", "floods")).toEqual({
        ofOne: TCP_BACKLOG_PER_REMOTE_MAX,
        ofAll: TCP_BACKLOG_MAX,
        refused: true,
        whole: [true, true],
        left: 0,
        inSpite: 2,
      });
    });

    it("incomplete and tiny fragments are bounded and dropped by name, and others' are still put together", () => {
      expect(outOf("fragments", "incomplete")).toEqual({ held: FRAGMENTS_PER_SOURCE_MAX, pingInSpite: true });
      const { counters } = outcomes.get("fragments")!;
      for (const drop of ["FRAGMENT_OVERLAP", "FRAGMENTS_FULL", "FIRST_FRAGMENT_TOO_SMALL", "FRAGMENT_IN_HEADER"]) {
        expect([drop, (counters[drop] ?? 0) > 0]).toEqual([drop, true]);
      }
    });
  },
);

describe.runIf(needs("tshark"))("the check of captures", () => {
  const [KERNEL_ADDRESS, STACK_ADDRESS] = ["10.98.0.1", STACK.v4];
  const ports = { sourcePort: 9, destinationPort: 80 };
  const back = { sourcePort: 80, destinationPort: 9 };
  const opening = [
    tcp(KERNEL_ADDRESS, STACK_ADDRESS, { ...ports, sequence: 99, flags: TCP_SYN }),
    tcp(STACK_ADDRESS, KERNEL_ADDRESS, { ...back, sequence: 499, acknowledgment: 100, flags: TCP_SYN | TCP_ACK }),
    tcp(KERNEL_ADDRESS, STACK_ADDRESS, { ...ports, sequence: 100, acknowledgment: 500, flags: TCP_ACK }),
  ];
  const answer = (fields: Partial<TcpFields>): Uint8Array =>
    tcp(STACK_ADDRESS, KERNEL_ADDRESS, { ...back, sequence: 500, acknowledgment: 100, flags: TCP_ACK, ...fields });
  const broken = answer({ data: new Uint8Array(10) });
  broken[45]! ^= 1;
  const stunted = answer({});
  stunted[32] = 4 << 4; // a header of 16 bytes

  const notesOn = async (...packets: readonly Uint8Array[]): Promise<string[]> => {
    using captures = new Captures();
    const capture = new Capture(captures.path("planted"));
    for (const [index, bytes] of [...opening, ...packets].entries()) capture.write(1_000 + index, bytes);
    capture.close();
    return (await findings(captures.path("planted"), [STACK_ADDRESS], [])).map(({ from, note }) => `${from}: ${note}`);
  };

  it("has nothing to say of what is right", async () => {
    expect(await notesOn(answer({ data: new Uint8Array(10) }))).toEqual([]);
  });

  it.each([
    ["a wrong checksum", broken, /^stack: (Bad|TCP) checksum/i],
    ["an acknowledgment of what never came", answer({ acknowledgment: 5_000 }), /^stack: ACKed segment/],
    ["a header too short", stunted, /^stack: .*(header|Malformed)/i],
    ["a closed window that no case closes", answer({ window: 0 }), /^stack: TCP Zero Window/],
    ["a reset that no case asks for", answer({ flags: TCP_RST }), /^stack: Connection reset/],
    ["a gap in what the stack sends", answer({ sequence: 700, data: new Uint8Array(10) }), /^stack: Previous segment/],
  ])("finds %s", async (_, planted, expected) => {
    expect(await notesOn(planted)).toContainEqual(expect.stringMatching(expected));
  });
});
