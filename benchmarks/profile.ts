// `npm run bench:profile [-- --reverse] [--seconds=N] [--top=N] [--keep=FOLDER]`: where the data thread's time goes
// while one TCP stream runs through a pair of `wirebadge wg --tun`; from a to b end a seals, with --reverse it opens.
// --keep leaves the profiles there, for a browser's developer tools.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { needsIn } from "../test/needs.ts";
import { Bed } from "./tun/bed.ts";
import { CONTENDERS, OURS } from "./tun/contenders.ts";
import { measureStream } from "./tun/probes.ts";
import { type CpuProfile, selfTimes } from "./tun/self-times.ts";

const INTERVAL_US = "500";
const WAITING = /^(?:wait src\/io\/ffi\/poller\.ts|\(idle\))/;

const { values } = parseArgs({
  options: {
    reverse: { type: "boolean", default: false },
    seconds: { type: "string", default: "4" },
    top: { type: "string", default: "30" },
    keep: { type: "string" },
  },
});

/** "CPU.20261122.103000.4711.1.002.cpuprofile" → 1; 0 is the main thread. */
const threadOf = (name: string): number => Number(name.split(".").at(-3));

async function profile(folder: string): Promise<void> {
  const ours = CONTENDERS.find(({ name }) => name === OURS)!;
  {
    await using bed = new Bed();
    const nodeFlags = ["--cpu-prof", `--cpu-prof-dir=${folder}`, `--cpu-prof-interval=${INTERVAL_US}`];
    const ends = await ours.start(bed, { nodeFlags });
    const words = values.reverse ? ["-R"] : [];
    const { gigabits, cpuPerGb } = await measureStream(bed, ends, Number(values.seconds), words);
    process.stdout.write(`${gigabits.toFixed(2)} Gb/s, ${cpuPerGb.toFixed(2)} CPU s/GB, with the profiler on\n`);
    await ends.endFirst?.(); // it writes its profiles at its end
  }
  const names = readdirSync(folder).filter((name) => name.endsWith(".cpuprofile"));
  const workers = names.filter((name) => threadOf(name) !== 0);
  if (names.length === 0) throw new Error("the profiled end wrote no profile: it was killed, or ended by itself");
  for (const name of workers.length > 0 ? workers : names) {
    process.stdout.write(`thread ${threadOf(name)}, self time with the native calls made, waiting left out:\n`);
    const times = selfTimes(JSON.parse(readFileSync(join(folder, name), "utf8")) as CpuProfile, WAITING);
    for (const { name: what, ms, share } of times.slice(0, Number(values.top)))
      process.stdout.write(`${(share * 100).toFixed(1).padStart(6)} % ${ms.toFixed(0).padStart(7)} ms  ${what}\n`);
  }
}

const needed = ["netns", "tun", "iperf3", "ping"] as const;
if (needsIn(process.env, (line) => process.stderr.write(line), "npm run bench:profile", needed)) {
  const folder = values.keep ?? mkdtempSync(join(tmpdir(), "wirebadge-profile-"));
  try {
    await profile(folder);
  } finally {
    if (values.keep === undefined) rmSync(folder, { recursive: true });
  }
}
