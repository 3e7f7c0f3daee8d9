import type { Command } from "commander";
import { describe, expect, it } from "vitest";
import { buildProgram } from "../../src/cli/program.ts";
import { Terminal } from "../../src/cli/terminal.ts";
import { fakeRuntime, lastJson, memoryStream, run } from "./command-line.ts";

const EXPECTED = [
  "can",
  "coordinator",
  "coordinator backup",
  "coordinator check",
  "coordinator restore",
  "denials",
  "identity list",
  "identity remove",
  "identity show",
  "ping",
  "policy check",
  "policy get",
  "policy set",
  "revoke",
  "session list",
  "status",
  "token create",
  "token list",
  "token revoke",
  "up",
  "wg",
  "whois",
];

/** Those that do something by themselves; `coordinator` does, and holds others besides. */
function leaves(command: Command, path: string[] = []): [path: string[], command: Command][] {
  const doesSomething = command.options.some(({ long }) => long === "--json");
  const children = command.commands.flatMap((child) => leaves(child, [...path, child.name()]));
  return doesSomething ? [[path, command], ...children] : children;
}

function program(): Command {
  const stream = (): ReturnType<typeof memoryStream>["stream"] => memoryStream().stream;
  const surroundings = { stdout: stream(), stderr: stream(), stdin: stream(), env: {}, nowMs: () => 0 };
  return buildProgram({ terminal: new Terminal(surroundings), runtime: fakeRuntime(), exitCode: 0 });
}

describe("the command line", () => {
  it("has every command of the reference and no other", () => {
    expect(
      leaves(program())
        .map(([path]) => path.join(" "))
        .sort(),
    ).toEqual(EXPECTED);
  });

  it.each(EXPECTED)("%s takes --json and shows an example of itself in its help", async (name) => {
    const { code, stdout, stderr } = await run([...name.split(" "), "--help"]);
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^ {2}--json /m);
    const examples = stdout.slice(stdout.indexOf("\nExamples:\n"));
    expect(examples).toMatch(new RegExp(`^ {2}\\$ (?:.*\\| )?wirebadge ${name}\\b`, "m"));
  });

  it.each(EXPECTED)("%s refuses an option that it doesn't have, as JSON too, with exit code 2", async (name) => {
    const words = [...name.split(" "), ...(name === "token create" ? ["--as", "agent:x"] : []), "--no-such-option"];
    const text = await run(words);
    expect(text.code).toBe(2);
    expect(text.stdout).toBe("");
    expect(text.stderr).toMatch(/^error USAGE: unknown option '--no-such-option'\nhint: .+\n$/);
    const json = await run([...words, "--json"]);
    expect(lastJson(json)).toMatchObject({ error: { code: "USAGE", message: "unknown option '--no-such-option'" } });
    expect([json.code, json.stderr]).toEqual([2, ""]);
  });

  it("every example parses: no option or command in it that doesn't exist", async () => {
    for (const [path, command] of leaves(program())) {
      const text = memoryStream();
      command.configureOutput({ writeOut: (chunk) => void text.stream.write(chunk) }).outputHelp();
      const help = text.text();
      const examples = [...help.slice(help.indexOf("Examples:")).matchAll(/wirebadge ((?:[^|&<>#'\n]|'[^']*')+)/g)].map(
        (match) => match[1]!,
      );
      for (const example of examples.filter((line) => line.startsWith(path.join(" ")))) {
        const words = [...example.matchAll(/'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2]!);
        const outcome = await run(words, { env: { WIREBADGE_ADMIN_TOKEN: "x" } });
        expect(outcome.stderr + outcome.stdout, example).not.toMatch(/USAGE/);
      }
    }
  });

  it("asks whether another command was meant", async () => {
    expect((await run(["tokn", "list"])).stderr).toBe(
      "error USAGE: unknown command 'tokn'\nhint: Did you mean token?\n",
    );
    expect((await run(["policy", "sett", "x"])).stderr).toContain("hint: Did you mean set?");
    expect((await run(["up", "--sock"])).stderr).toContain("hint: Did you mean --socks?");
  });

  it("without a command prints the help, on standard error, with exit code 2", async () => {
    for (const words of [[], ["token"], ["policy"]]) {
      const { code, stdout, stderr } = await run(words);
      expect([code, stdout]).toEqual([2, ""]);
      expect(stderr).toContain("Usage: wirebadge");
    }
    expect(lastJson(await run(["token", "--json"]))).toMatchObject({ error: { code: "USAGE" } });
  });

  it("prints its version", async () => {
    expect((await run(["--version"])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it("refuses more arguments than a command takes", async () => {
    for (const words of [
      ["token", "list", "x"],
      ["whois", "a", "b"],
      ["can", "a", "b", "c"],
    ])
      expect((await run(words)).stderr).toMatch(/^error USAGE: too many arguments/);
  });
});

describe("a token on the command line", () => {
  const token = "wb_join_AQAVsecretsecretsecretsecret_0badc0de";
  const places = [
    ["up", token],
    ["up", "--token-file", token],
    ["up", `--token-file=${token}`],
    ["up", "--token", token],
    [token],
    ["--json", "policy", "set", `x${token}`],
    ["up", "--", token],
    ["token", "revoke", "wb_admin_0123456789abcdef_secret"],
  ];

  it.each(places)("is refused wherever it stands, and not repeated: %s …", async (...words) => {
    const { code, stdout, stderr } = await run(words);
    expect(code).toBe(2);
    expect(stdout + stderr).not.toMatch(/secret_|AQAV|0badc0de|0123456789abcdef/);
    expect(stdout + stderr).toContain("--token-file");
    expect(stdout + stderr).toContain("WIREBADGE_TOKEN");
  });
});

describe("options that are wrong", () => {
  it.each([
    [["coordinator", "--listen", "0.0.0.0:7470"], "--url"],
    [["coordinator", "--listen", "[::]:7470"], "--url"],
    [["coordinator", "--listen", "localhost"], "ADDRESS:PORT"],
    [["coordinator", "--listen", "127.0.0.1:99999"], "ADDRESS:PORT"],
    [["coordinator", "--url", "ftp://x"], "http"],
    [["coordinator", "--udp", "nowhere"], "HOST:PORT"],
    [["up", "--socks", "0.0.0.0:1080"], "--allow-remote"],
    [["up", "--socks", "non sense"], "HOST:PORT"],
    [["up", "--listen-port", "65536"], "port"],
    [["up", "--route", "10.0.0.0/33"], "prefix"],
    [["up", "--route", "host:a b"], "host:*.staging.internal"],
    [["up", "--serve", "Bad_Name=1.2.3.4:5"], "NAME=HOST:PORT"],
    [["up", "--forward", "5432"], "LOCAL=HOST:PORT"],
    [["up", "--expose", "80"], "LOCAL=PORT"],
    [["up", "--require", "magic"], "native"],
    [["wg", "x.conf", "--socks", "10.0.0.1:1080"], "loopback"],
    [["token", "create"], "--as"],
    [["token", "create", "--as", "coder"], "agent:coder"],
    [["token", "create", "--as", "agent:x", "--uses", "0"], "whole number"],
    [["token", "create", "--as", "agent:x", "--expires", "soon"], "duration"],
    [["token", "create", "--as", "node:x", "--sponsor", "user:a@b.c"], "for agents"],
    [["token", "create", "--as", "agent:x", "--sponsor", "node:y"], "not a user"],
    [["token", "list", "--url", "http://mesh.example.com:7471"], "clear text"],
    [["token", "list", "--url", "http://user:secret@127.0.0.1"], "without credentials"],
    [["revoke", "coder"], "agent:coder"],
    [["identity", "show", "coder"], "agent:coder"],
    [["can", "10.0.0.1", "tcp:5432"], "wirebadge can '10.0.0.1 tcp:5432'"],
    [["can", "coder", "service:x"], "agent:coder"],
    [["policy", "get", "latest"], "whole number"],
  ])("%j says what was expected: %s", async (words, part) => {
    const { code, stdout, stderr } = await run(words);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^error USAGE: /);
    expect(stderr).toContain(part);
  });
});
