// Reads what the measuring tools print: `iperf3 -J` and `ping`.

export interface IperfRun {
  readonly bitsPerSecond: number;
  /** That the receiving end got. */
  readonly bytes: number;
}

/** @throws Error with iperf3's own words when the run failed, or when this is no report of a TCP run */
export function parseIperf(text: string): IperfRun {
  let report: unknown;
  try {
    report = JSON.parse(text);
  } catch {
    throw new Error(`iperf3 printed no JSON: ${text.slice(0, 200)}`);
  }
  const { error, end } = report as { error?: unknown; end?: { sum_received?: Record<string, unknown> } };
  if (typeof error === "string") throw new Error(`iperf3: ${error}`);
  const bitsPerSecond = end?.sum_received?.["bits_per_second"];
  const bytes = end?.sum_received?.["bytes"];
  if (typeof bitsPerSecond !== "number" || typeof bytes !== "number" || bytes === 0)
    throw new Error("iperf3's report has no bytes received");
  return { bitsPerSecond, bytes };
}

/** The round trips in ms, in the order of the answers. */
export function parsePing(text: string): number[] {
  return [...text.matchAll(/\btime=([\d.]+) ms/g)].map(([, ms]) => Number(ms));
}

/** When the first answer came, in ms after the first request of a ping every `everyMs`; undefined while none has. */
export function firstReplyMs(text: string, everyMs: number): number | undefined {
  const answer = /\bicmp_seq=(\d+)\b.*\btime=([\d.]+) ms/.exec(text);
  return answer === null ? undefined : (Number(answer[1]) - 1) * everyMs + Number(answer[2]);
}
