// Blobs of http-target.ts, fetched by curl.
import type { Namespace } from "../namespaces.ts";
import { requireTool } from "../needs.ts";

export interface FetchOptions {
  /** As curl takes it. */
  readonly rate?: string;
  readonly maxSeconds?: number;
}

/** The hash of a blob; of what came, when it did not come whole. */
export async function fetchedHash(
  from: Namespace,
  host: string,
  port: number,
  bytes: number,
  { rate, maxSeconds = 100 }: FetchOptions = {},
): Promise<string> {
  const url = `http://${host.includes(":") ? `[${host}]` : host}:${port}/blob/${bytes}`;
  const limit = rate === undefined ? "" : `--limit-rate ${rate}`;
  const command = `${requireTool("curl")} -sS --fail ${limit} --max-time ${maxSeconds} '${url}' | sha256sum`;
  return (await from.run("sh", ["-c", command], { timeoutMs: (maxSeconds + 10) * 1_000 })).stdout.split(" ")[0]!;
}
