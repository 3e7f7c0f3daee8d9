// The whole command line as one tree; nothing runs before it is parsed.
import { Command } from "commander";
import { SOFTWARE_VERSION } from "../io/version.ts";
import type { Context } from "./admin-command.ts";
import { addCoordinatorCommand } from "./coordinator-command.ts";
import { addIdentityCommands, addRevokeCommand, addSessionCommands } from "./identity-commands.ts";
import { addPeerCommands } from "./peer-commands.ts";
import { addPolicyCommands } from "./policy-commands.ts";
import { addTokenCommands } from "./token-commands.ts";
import { addUpCommand, addWgCommand } from "./up-command.ts";

export function buildProgram(context: Context): Command {
  const { stdout, stderr } = context.terminal.surroundings;
  const program = new Command("wirebadge")
    .description("A private network for AI agents, machines and people: WireGuard in TypeScript, by policy.")
    .version(SOFTWARE_VERSION, "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void stdout.write(text),
      writeErr: (text) => void stderr.write(text),
      outputError: () => undefined,
    })
    .enablePositionalOptions()
    .addHelpText(
      "after",
      "\nExamples:\n  $ wirebadge coordinator\n  $ wirebadge token create --as agent:coder --out coder.token\n" +
        "  $ wirebadge up --token-file coder.token --socks\n  $ wirebadge can service:staging\n" +
        "\nEvery command takes --json and has examples in its own --help.",
    );
  program.commandsGroup("Run:");
  addCoordinatorCommand(program, context);
  addUpCommand(program, context);
  addWgCommand(program, context);
  program.commandsGroup("Administer the network:");
  addTokenCommands(program, context);
  addPolicyCommands(program, context);
  addIdentityCommands(program, context);
  addSessionCommands(program, context);
  addRevokeCommand(program, context);
  program.commandsGroup("Ask:");
  addPeerCommands(program, context);
  return program;
}
