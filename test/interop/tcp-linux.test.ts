// TCP of the userspace stack and of the Linux kernel, over links with every kind of fault: each byte, whoever opens,
// and no protocol error in tshark's expert analysis of what passed.
import { beforeAll, describe, expect, it } from "vitest";
import { Lab } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { LONG, record } from "../proof/form.ts";
import { type Finding, findings } from "./tcp-linux/expert.ts";
import { Captures, inWorld, rooms, sideBySide } from "./tcp-linux/lab.ts";
import { circumstancesOf, LINKS } from "./tcp-linux/links.ts";
import type { TransfersOutcome } from "./tcp-linux/transfers.ts";
import { STACK } from "./tcp-linux/world.ts";

/** Most of them wait. */
const WIDTH = 4;
const LINK_MAX_MS = LONG ? 900_000 : 200_000;
const ALL_MAX_MS = LONG ? 3_600_000 : 400_000;

describe.runIf(needs("netns", "tun", "nft", "tshark", "ping"))(
  "TCP between the stack and the Linux kernel, over a link with",
  () => {
    const outcomes = new Map<string, TransfersOutcome>();
    const remarks = new Map<string, Finding[]>();

    beforeAll(async () => {
      await using lab = new Lab();
      using captures = new Captures();
      const run = async (index: number): Promise<void> => {
        const link = LINKS[index]!;
        const capture = captures.path(String(index));
        const spec = { ...link, capture };
        outcomes.set(link.name, await inWorld(rooms(lab, `w${index}`), "transfers.ts", spec, LINK_MAX_MS));
        remarks.set(link.name, await findings(capture, Object.values(STACK), circumstancesOf(link)));
        captures.drop(String(index));
      };
      await sideBySide([...LINKS.keys()], WIDTH, run);
    }, ALL_MAX_MS);

    it.each(LINKS)("$name: every byte arrives both ways, whoever opens", ({ name, openers }) => {
      const { carried } = outcomes.get(name)!;
      expect(Object.keys(carried)).toHaveLength(openers?.length ?? 4);
      for (const [what, { whole, closed }] of Object.entries(carried)) {
        expect([what, ...whole, closed]).toEqual([what, true, true, "closed"]);
      }
    });

    it.each(LINKS)("$name: the capture holds no protocol error", ({ name }) => {
      expect(outcomes.get(name)!.frames).toBeGreaterThan(100);
      expect(remarks.get(name)).toEqual([]);
    });

    it("all of them, counted", () => {
      const all = [...outcomes.values()];
      const connections = all.flatMap(({ carried }) => Object.values(carried));
      const slowest = Math.max(...connections.map(({ ms }) => ms));
      const frames = all.reduce((sum, outcome) => sum + outcome.frames, 0);
      const figure = `${frames.toLocaleString("en")} packets, slowest ${Math.round(slowest / 100) / 10} s`;
      record({ what: `TCP with Linux: connections over ${LINKS.length} links`, count: connections.length, figure });
      expect(all).toHaveLength(LINKS.length);
    });
  },
);
