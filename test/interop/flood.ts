// Starts handshake-flood.ts in a namespace.
import { fileURLToPath } from "node:url";
import type { Namespace } from "../namespaces.ts";
import { Program, until } from "../scripts/program.ts";
import type { FloodOptions, FloodReport } from "./handshake-flood.ts";

const FLOOD = fileURLToPath(new URL("handshake-flood.ts", import.meta.url));

export interface Flood {
  /** Resolves when a report from now on shows that cookies are asked for, over a whole second. */
  underLoad(): Promise<FloodReport>;
}

export async function startFlood(namespace: Namespace, options: FloodOptions): Promise<Flood> {
  const program = new Program("the flood", process.execPath, [FLOOD, JSON.stringify(options)], { namespace });
  return {
    underLoad: async () => {
      const from = program.stdoutLines.length + 1; // the one that is being counted is half of before
      return await until("cookie replies to the flood", () => {
        if (!program.alive) throw new Error(program.tail);
        const reports = program.stdoutLines.slice(from).map((line) => JSON.parse(line) as FloodReport);
        return reports.find((report) => report.cookies > 0);
      });
    },
  };
}
