// What a daemon costs, read from /proc: CPU time and memory of a process with all its descendants (a launcher that
// forks counts with what it started), and the CPU time that others used meanwhile, which would spoil a measurement.
import { readdirSync, readFileSync } from "node:fs";

/** The kernel's clock tick as user space sees it, on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100;
const KTHREADD = 2;

export interface ProcessStat {
  readonly pid: number;
  readonly parent: number;
  /** User and system time of all its threads, also those that ended, in seconds. */
  readonly cpuSeconds: number;
  /** The same of its children that ended and were waited for, with theirs. */
  readonly childrenSeconds: number;
}

/** `/proc/PID/stat`; the name in parentheses may hold anything. proc_pid_stat(5) */
export function parseStat(text: string): ProcessStat {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const seconds = (from: number): number => (Number(fields[from]) + Number(fields[from + 1])) / TICKS_PER_SECOND;
  return {
    pid: Number.parseInt(text, 10),
    parent: Number(fields[1]),
    cpuSeconds: seconds(11),
    childrenSeconds: seconds(13),
  };
}

/** `root` and all below it. */
export function treeOf(root: number, all: readonly ProcessStat[]): ProcessStat[] {
  const tree = all.filter(({ pid }) => pid === root);
  for (const one of tree) tree.push(...all.filter(({ parent }) => parent === one.pid)); // grows while it is walked
  return tree;
}

/** Of a file below /proc; undefined when the process is gone. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

function processes(): ProcessStat[] {
  return readdirSync("/proc").flatMap((name) => {
    const text = /^\d+$/.test(name) ? read(`/proc/${name}/stat`) : undefined;
    return text === undefined ? [] : [parseStat(text)];
  });
}

/** User and system seconds of these daemons so far. */
export function cpuSecondsOf(pids: readonly number[]): number {
  const all = processes();
  return pids.flatMap((pid) => treeOf(pid, all)).reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
}

/** Resident memory in MB (10^6 bytes) of each daemon. */
export function residentMb(pids: readonly number[]): number[] {
  const all = processes();
  return pids.map((root) =>
    treeOf(root, all).reduce((sum, { pid }) => {
      const kib = /VmRSS:\s+(\d+) kB/.exec(read(`/proc/${pid}/status`) ?? "")?.[1];
      return sum + (Number(kib ?? 0) * 1024) / 1e6;
    }, 0),
  );
}

export interface CpuUse {
  /** Of processes that are neither this one, nor its ended children, nor kernel threads. */
  readonly othersSeconds: number;
  /** That the hypervisor gave to somebody else. */
  readonly stolenSeconds: number;
}

/** So far; asked before and after a measurement whose processes have all ended and are children of this one. */
export function cpuUse(): CpuUse {
  const columns = (read("/proc/stat") ?? "").split("\n", 1)[0]!.split(/\s+/).slice(1).map(Number);
  const [user = 0, nice = 0, system = 0, , , , , steal = 0] = columns.map((ticks) => ticks / TICKS_PER_SECOND);
  const all = processes();
  const own = all.find(({ pid }) => pid === process.pid);
  const kernel = all.filter(({ pid, parent }) => pid === KTHREADD || parent === KTHREADD);
  const known = kernel.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
  const ours = (own?.cpuSeconds ?? 0) + (own?.childrenSeconds ?? 0);
  return { othersSeconds: user + nice + system - known - ours, stolenSeconds: steal };
}
