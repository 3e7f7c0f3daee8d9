// What only the start of the program needed, given back once a peer runs: some 35 of 105 MB; and later, now and then,
// what its compilers needed meanwhile. Pages of the program's own file stay in its memory (RSS) until somebody else
// needs room, and most are not asked for again; the kernel has them in its page cache and maps them again where they
// are: under load those that packets need, 10 of 20 MB, 1 ms of work. What was freed malloc(3) keeps until told.
import { readFileSync, realpathSync } from "node:fs";
import type { Logger } from "pino";
import { lastErrno, systemError } from "./errno.ts";
import { bindNative, hasLinuxLayouts } from "./koffi.ts";

const MADV_DONTNEED = 4;
const FIRST_LOOK_MS = 10_000; // while there is load; else each comes after twice as long as the one before
const LAST_LOOK_MS = 600_000;
const LOAD = 0.1; // of a CPU since the last look
const WORTH_BYTES = 4_000_000; // above what was left the last time

export interface Mapping {
  readonly at: number;
  readonly bytes: number;
}

/**
 * The mappings of `file` that can't be written to and have no page of their own: what madvise(2) drops of them is read
 * from the file again. `smaps` is /proc/PID/smaps (proc_pid_smaps(5)).
 */
export function unwrittenMappings(smaps: string, file: string): Mapping[] {
  const found: Mapping[] = [];
  let mapping: Mapping | undefined;
  for (const line of smaps.split("\n")) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) [0-9a-f]+ \S+ \d+(?: +(.*))?$/.exec(line);
    if (head !== null) {
      const [at, end] = [Number.parseInt(head[1]!, 16), Number.parseInt(head[2]!, 16)];
      mapping = head[4] === file && /^r-.p$/.test(head[3]!) ? { at, bytes: end - at } : undefined;
    } else if (mapping !== undefined && /^Anonymous: +0 kB$/.test(line)) found.push(mapping);
  }
  return found;
}

/**
 * Gives back now, and again where memory has grown by some MB: looks every 10 s under load, ever more rarely without;
 * a few ms each time. Linux alone.
 */
export function keepMemoryLean(logger: Pick<Logger, "debug">): void {
  if (!hasLinuxLayouts()) return;
  let leftBytes = giveBack(logger);
  const lookAfter = (ms: number): void => {
    const before = process.cpuUsage();
    const look = (): void => {
      const { user, system } = process.cpuUsage(before);
      const isLoaded = (user + system) / 1_000 >= LOAD * ms;
      if (process.memoryUsage.rss() - leftBytes >= WORTH_BYTES) leftBytes = giveBack(logger);
      lookAfter(isLoaded ? FIRST_LOOK_MS : Math.min(2 * ms, LAST_LOOK_MS));
    };
    setTimeout(look, ms).unref();
  };
  lookAfter(FIRST_LOOK_MS);
}

/** Bytes that are left (RSS). No error matters, but it is told. */
export function giveBack(logger: Pick<Logger, "debug">): number {
  for (const part of [giveBackProgramPages, giveBackFreedMemory]) {
    try {
      part();
    } catch (error) {
      logger.debug({ event: "lean-memory", err: error }, "not all memory that is not needed was given back");
    }
  }
  return process.memoryUsage.rss();
}

function giveBackProgramPages(): void {
  const mappings = unwrittenMappings(readFileSync("/proc/self/smaps", "latin1"), realpathSync("/proc/self/exe"));
  const madvise = bindNative("madvise", "int", "uintptr_t", "size_t", "int");
  for (const { at, bytes } of mappings) {
    if (madvise(at, bytes, MADV_DONTNEED) !== 0) throw systemError("madvise", lastErrno());
  }
}

/** What V8's compilers and the loader have freed, which malloc keeps for each of their threads. glibc alone has it. */
function giveBackFreedMemory(): void {
  bindNative("malloc_trim", "int", "size_t")(0);
}
