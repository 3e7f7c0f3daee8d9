// Where a thread's time went, from a V8 CPU profile (`--cpu-prof`): self time by function.

export interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  /** Which node ran, sample by sample. */
  readonly samples: readonly number[];
  /** µs before each sample. */
  readonly timeDeltas: readonly number[];
}

export interface SelfTime {
  /** "seal src/io/ffi/openssl.ts:88", or V8's own word: "(garbage collector)", "(program)". */
  readonly name: string;
  readonly ms: number;
  /** 0 to 1, of the time that is shown. */
  readonly share: number;
}

const FROM_TREE = /^.*\/((?:src|node_modules|benchmarks)\/.*)$/;

/** By self time, most first, without the functions whose name `idle` matches: a thread that waits does nothing. */
export function selfTimes({ nodes, samples, timeDeltas }: CpuProfile, idle?: RegExp): SelfTime[] {
  const names = new Map(
    nodes.map(({ id, callFrame: { functionName, url, lineNumber } }) => {
      const name = functionName === "" ? "(anonymous)" : functionName;
      return [id, url === "" ? name : `${name} ${url.replace(FROM_TREE, "$1")}:${lineNumber + 1}`] as const;
    }),
  );
  const spent = new Map<string, number>();
  let total = 0;
  samples.forEach((id, index) => {
    const name = names.get(id) ?? "(unknown)";
    if (idle?.test(name)) return;
    const us = Math.max(0, timeDeltas[index] ?? 0); // V8 may give one that is below zero
    spent.set(name, (spent.get(name) ?? 0) + us);
    total += us;
  });
  return [...spent]
    .map(([name, us]) => ({ name, ms: us / 1_000, share: total === 0 ? 0 : us / total }))
    .sort((a, b) => b.ms - a.ms);
}
