// `wirebadge wg` as a process of its own that also says what it has counted: a line on stdin is answered by its
// counters. Arguments: a configuration file, then places to expose. FLOOD_VICTIM_TRACED adds those of turn-trace.ts.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pino } from "pino";
import { startWgMode } from "../../src/peer/wg-mode.ts";
import { traceTurns } from "./turn-trace.ts";

const trace = process.env["FLOOD_VICTIM_TRACED"] === undefined ? () => ({}) : traceTurns();
const [fileName, ...exposes] = process.argv.slice(2);
const running = await startWgMode({
  configText: readFileSync(fileName!, "utf8"),
  fileName: fileName!,
  socks: undefined,
  forwards: [],
  exposes,
  ignoreHooks: false,
  requireNative: process.env["FLOOD_VICTIM_PORTABLE"] === undefined,
  logger: pino({ level: "warn" }, process.stderr),
});
process.stdout.write(`${JSON.stringify({ ready: running.publicKey })}\n`);
createInterface({ input: process.stdin }).on("line", () => {
  process.stdout.write(`${JSON.stringify({ ...running.counters(), ...trace() })}\n`);
});
