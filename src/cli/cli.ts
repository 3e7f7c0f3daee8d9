// One run of the command line: words in, exit code out. Every failure ends here, as one line and a hint, or as JSON.
import { type Command, CommanderError } from "commander";
import { WirebadgeError } from "../base/errors.ts";
import type { Context } from "./admin-command.ts";
import { buildProgram } from "./program.ts";
import type { Runtime } from "./runtime.ts";
import { refuseTokensInArguments } from "./secrets.ts";
import { type Surroundings, Terminal } from "./terminal.ts";

/** `words` without the program's own name. Resolves to the exit code. */
export async function runCli(words: readonly string[], surroundings: Surroundings, runtime: Runtime): Promise<number> {
  const terminal = new Terminal(surroundings);
  terminal.json = words.slice(0, words.includes("--") ? words.indexOf("--") : undefined).includes("--json");
  const context: Context = { terminal, runtime, exitCode: 0 };
  const program = buildProgram(context);
  try {
    refuseTokensInArguments(words);
    await program.parseAsync(words, { from: "user" });
    return context.exitCode;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0; // --help, --version
    const helped = error instanceof CommanderError && error.code === "commander.help";
    if (helped && !terminal.json) return 2; // the help that was printed is the answer
    return terminal.failure(error instanceof CommanderError ? usageError(error, program, words) : error);
  } finally {
    await terminal.flush();
  }
}

/** Commander's complaint as an error of the catalogue: `(Did you mean …?)` becomes the hint. */
function usageError(error: CommanderError, program: Command, words: readonly string[]): WirebadgeError {
  const path = ["wirebadge"];
  let command: Command | undefined = program;
  for (const word of words) {
    command = command?.commands.find((child) => child.name() === word);
    if (command === undefined) break;
    path.push(word);
  }
  const help = `${path.join(" ")} --help`;
  if (error.code === "commander.help")
    return new WirebadgeError("USAGE", `${path.join(" ")} needs a command of its own`, { hint: `see ${help}` });
  const [message, meant] = error.message.replace(/^error: /, "").split("\n");
  const suggestion = /\((Did you mean .*)\)/.exec(meant ?? "")?.[1];
  return new WirebadgeError("USAGE", message ?? error.message, { hint: suggestion ?? `see ${help}` });
}
