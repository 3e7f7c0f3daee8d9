// The `wirebadge` command: bin/wirebadge runs this file on a Node that is new enough.
import { runCli } from "./cli.ts";
import { systemRuntime } from "./system-runtime.ts";

const { stdout, stderr, stdin, env } = process;
const code = await runCli(process.argv.slice(2), { stdout, stderr, stdin, env, nowMs: Date.now }, systemRuntime());
process.exit(code);
