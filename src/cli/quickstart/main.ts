// `npm start`: a whole network on this machine, made of the processes and commands that users run.
import { relative } from "node:path";
import { parseArgs } from "node:util";
import { WirebadgeError } from "../../base/errors.ts";
import { printable } from "../../base/printable.ts";
import { formatMeasuredMs } from "../table.ts";
import { Terminal } from "../terminal.ts";
import { Check, type StepResult } from "./check.ts";
import { FLIPS, type Flip, Network } from "./network.ts";
import { isolatedPlaces, loopbackPlaces } from "./places.ts";
import { Processes, WIREBADGE } from "./processes.ts";

const HELP = `Usage: npm start -- [--once] [--json] [--isolated]

A whole network on this machine: a coordinator, a gateway in front of two private HTTP services, and two agents.
Runs a check of six steps, then stays up until Ctrl-C; leaves nothing behind.

Options:
  --once      end after the check: exit code 0 only if each step held
  --json      print one JSON object instead of text
  --isolated  put each process into a network namespace of its own (root, Linux)

Examples:
  $ npm start
  $ npm start -- --once --json
`;

const { stdout, stderr, stdin, env } = process;
const terminal = new Terminal({ stdout, stderr, stdin, env, nowMs: Date.now });
process.exit(await main());

async function main(): Promise<number> {
  let options: {
    readonly once?: boolean;
    readonly json?: boolean;
    readonly isolated?: boolean;
    readonly help?: boolean;
  };
  try {
    const boolean = { type: "boolean" } as const;
    options = parseArgs({ options: { once: boolean, json: boolean, isolated: boolean, help: boolean } }).values;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return terminal.failure(new WirebadgeError("USAGE", message, { hint: "npm start -- --help" }));
  }
  terminal.json = options.json === true;
  if (options.help === true) {
    stdout.write(HELP);
    return 0;
  }
  const asked = askedToEnd();
  const processes = new Processes();
  const progress = { held: false };
  try {
    const outcome = await Promise.race([play(processes, options, progress), asked]);
    if (outcome !== "asked") return outcome;
    say("\nEnding every process, removing every trace.");
    return progress.held ? 0 : 130;
  } catch (error) {
    return terminal.failure(error);
  } finally {
    await processes.cleanUp();
    await terminal.flush();
  }
}

/** Resolves at the first Ctrl-C or end of the terminal; the second one is left to the guard alone. */
function askedToEnd(): Promise<"asked"> {
  return new Promise((resolve) => {
    let count = 0;
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
      process.on(signal, () => {
        count += 1;
        if (count > 1) process.exit(130);
        resolve("asked");
      });
  });
}

/** The exit code. Without --once it stays for as long as it is let. */
async function play(
  processes: Processes,
  options: { readonly once?: boolean; readonly isolated?: boolean },
  progress: { held: boolean },
): Promise<number> {
  const startedMs = performance.now();
  const places = options.isolated === true ? isolatedPlaces(processes) : loopbackPlaces();
  const network = new Network(processes, places, flip());
  say(`Wirebadge: a whole network on this machine, six processes.\n${places.remark}\n`);
  const check = new Check(network, (result) => say(formatStep(result)));
  const steps = await check.run();
  const failed = steps.find((step) => !step.ok);
  const tookMs = performance.now() - startedMs;
  const summary = { ok: failed === undefined, ...(failed === undefined ? {} : { failed: failed.name }), tookMs, steps };
  if (terminal.json) stdout.write(`${JSON.stringify(summary)}\n`);
  if (failed !== undefined) {
    if (!terminal.json) terminal.note(`\nerror: step ${failed.name} did not hold`);
    return 1;
  }
  say(`\nEach step held; ${formatMeasuredMs(tookMs)} in all.`);
  progress.held = true;
  if (options.once === true) return 0;
  await invite(network);
  return new Promise<never>(() => undefined);
}

function say(text: string): void {
  if (!terminal.json) stdout.write(`${text}\n`);
}

function formatStep({ name, ok, ms, text }: StepResult): string {
  return (
    `${ok ? "✓" : "✗"} ${name.padEnd(12)} ${formatMeasuredMs(ms).padStart(8)}  ` +
    `${text
      .split("\n")
      .map((line) => printable(line))
      .join("\n    ")}`
  );
}

/** For tests: one thing turned over, so that one step can't hold. */
function flip(): Flip | undefined {
  const asked = env["WIREBADGE_QUICKSTART_FLIP"];
  if (asked === undefined || asked === "") return undefined;
  const known = FLIPS.find((name) => name === asked);
  if (known === undefined)
    throw new WirebadgeError("USAGE", `WIREBADGE_QUICKSTART_FLIP=${asked} is unknown`, { hint: FLIPS.join(", ") });
  return known;
}

/** agent:coder comes back with a new token (revoking ended the old session for good), and what to try is printed. */
async function invite(network: Network): Promise<void> {
  const { places } = network;
  const words = ["token", "create", "--as", "agent:coder", "--sponsor", "user:ana@example.com"];
  const token = String((await network.admin(words))["token"]);
  const coder = await network.startPeer("coder", token, places.socks, "coder-again");
  const namespace = places.namespaceOf("coordinator");
  const inside = namespace === undefined ? "" : `ip netns exec ${namespace} `;
  const proxy = coder.socksListen.startsWith("/") ? `localhost${coder.socksListen}` : coder.socksListen;
  const wirebadge = relative(process.cwd(), WIREBADGE);
  const admin = `--url ${network.adminUrl} --data ${network.dataFolder}`;
  say(`
agent:coder is back with a new session. Try, from another terminal:

  curl --proxy socks5h://${proxy} http://staging/
  curl --proxy socks5h://${proxy} http://production/   # denied
  ${wirebadge} denials --state ${coder.state}   # why
  ${wirebadge} can service:production --state ${coder.state}
  ${wirebadge} status --state ${coder.state}
  ${inside}${wirebadge} can agent:coder service:production ${admin}
  ${inside}${wirebadge} policy get ${admin}
  ${inside}${wirebadge} revoke agent:coder ${admin}

Ctrl-C ends it and leaves nothing behind.`);
}
