// Logs of the long-running commands go to standard error: readable on a terminal, one JSON object a line elsewhere.
import type { DestinationStream, Logger } from "pino";
import { hideSecrets } from "./secrets.ts";
import type { Surroundings } from "./terminal.ts";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Whatever is logged passes `hideSecrets` as the whole line, so that no field can carry a token out. */
export async function makeLogger(surroundings: Surroundings, level: LogLevel): Promise<Logger> {
  const { pino } = await import("pino"); // only the commands that stay pay for loading it
  const { stderr } = surroundings;
  const raw: DestinationStream = { write: (line) => void stderr.write(hideSecrets(line)) };
  const options = { level, base: null, formatters: { level: (label: string) => ({ level: label }) } };
  if (stderr.isTTY !== true) return pino({ ...options, timestamp: pino.stdTimeFunctions.isoTime }, raw);
  const { default: pinoPretty } = await import("pino-pretty");
  const pretty = pinoPretty({
    colorize: surroundings.env["NO_COLOR"] === undefined,
    translateTime: "SYS:HH:MM:ss.l",
    ignore: "pid,hostname",
    destination: { write: raw.write } as never,
  });
  return pino({ ...options, formatters: {} }, pretty);
}
