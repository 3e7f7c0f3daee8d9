// The namespaces of one world (world.ts), and the process that lives in them.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Lab, Namespace } from "../../namespaces.ts";
import type { WorldSpec } from "./world.ts";

export const ROUTER_OF_HOST = "10.98.0.254";

export interface Rooms {
  readonly host: Namespace;
  readonly router: Namespace;
}

/**
 * The kernel's sockets live in `host`; `router` forwards, in order. Each packet is one packet: loss counts them.
 */
export function rooms(lab: Lab, label: string): Rooms {
  const host = lab.namespace(`${label}-host`);
  const router = lab.namespace(`${label}-router`);
  const [device, routerDevice] = lab.link(
    { namespace: host, addresses: ["10.98.0.1/24", "fd98::1/64"] },
    { namespace: router, addresses: [`${ROUTER_OF_HOST}/24`, "fd98::fe/64"] },
  );
  host.ip("link", "set", device, "gso_max_segs", "1");
  host.keepOrder(device);
  router.keepOrder(routerDevice);
  router.enableForwarding();
  host.addRoute("default", ROUTER_OF_HOST);
  host.addRoute("default", "fd98::fe");
  router.awaitNeighbour("fd98::1");
  return { host, router };
}

export class Captures {
  readonly #folder = mkdtempSync(join(tmpdir(), "wirebadge-captures-"));

  path(label: string): string {
    return join(this.#folder, `${label}.pcap`);
  }

  /** What has been looked at. */
  drop(label: string): void {
    rmSync(this.path(label));
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true });
  }
}

/** Runs `script` with the spec in the host's namespace; it prints one line of JSON. */
export async function inWorld<S extends Omit<WorldSpec, "router">, T>(
  { host, router }: Rooms,
  script: string,
  spec: S,
  timeoutMs: number,
): Promise<T> {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const run = await host.run(process.execPath, [path, JSON.stringify({ ...spec, router: router.name })], { timeoutMs });
  return JSON.parse(run.stdout) as T;
}

/** At most `width` at a time, in order. */
export async function sideBySide<I, O>(
  items: readonly I[],
  width: number,
  work: (item: I) => Promise<O>,
): Promise<O[]> {
  const results: O[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < items.length) {
      const index = next++;
      results[index] = await work(items[index]!);
    }
  };
  await Promise.all(Array.from({ length: width }, lane));
  return results;
}
