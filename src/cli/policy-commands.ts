// `wirebadge policy …`: the one document that says who reaches what.
import { userInfo } from "node:os";
import type { Command } from "commander";
import { WirebadgeError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { type Diagnostic, type PolicyCheck, policyCheckSchema, policySchema } from "../coordinator/http/schema.ts";
import { AdminApiError } from "./admin-client.ts";
import { type AdminFlags, addAdminCommand, adminClient, type Context } from "./admin-command.ts";
import { addFamily, parseCount } from "./command.ts";
import { readPolicyFile } from "./policy-file.ts";

interface SetFlags extends AdminFlags {
  readonly author?: string;
  readonly reason?: string;
  readonly expect?: number;
}

const FILE_DETAILS =
  "FILE is JSONC, or a .ts, .mts, .js or .mjs module whose default export is definePolicy({…}) (run on " +
  "this machine only, the JSON is sent); - is standard input.";

export function addPolicyCommands(program: Command, context: Context): void {
  const family = addFamily(program, "policy", "read, check and change who may reach what");
  addAdminCommand(family, {
    usage: "get [version]",
    summary: "print the policy as it was written, the current one or an older version",
    examples: [
      "wirebadge policy get > policy.jsonc",
      "wirebadge policy get 7 | wirebadge policy set - --reason 'back to 7'",
    ],
  }).action((version: string | undefined, flags: AdminFlags) => getPolicy(context, version, flags));
  addAdminCommand(family, {
    usage: "check <file>",
    summary: "say what is wrong with a policy, and run its own tests, without changing anything",
    details: `${FILE_DETAILS} Exit code 0: it would be accepted.`,
    examples: ["wirebadge policy check policy.jsonc", "wirebadge policy check policy.ts --json | jq .tests"],
  }).action((file: string, flags: AdminFlags) => checkPolicy(context, file, flags));
  addAdminCommand(family, {
    usage: "set <file>",
    summary: "make this the policy; it is refused when it is wrong or when its own tests fail",
    details: FILE_DETAILS,
    examples: [
      "wirebadge policy set policy.jsonc --reason 'coder reads staging'",
      "wirebadge policy set policy.ts --expect 7   # only if nobody changed it since version 7",
    ],
  })
    .option("--author <name>", "who changes it, for the record (default: the user who runs this)")
    .option("--reason <text>", "why, for the record")
    .option("--expect <version>", "refuse unless this is the current version", (text) =>
      text === "0" ? 0 : parseCount(text),
    )
    .action((file: string, flags: SetFlags) => setPolicy(context, file, flags));
}

async function getPolicy(context: Context, version: string | undefined, flags: AdminFlags): Promise<void> {
  if (version !== undefined && !/^\d{1,9}$/.test(version))
    throw new WirebadgeError("USAGE", "the version is a whole number", { hint: "wirebadge policy get 7" });
  const client = await adminClient(context, flags);
  const query = version === undefined ? "" : `?version=${version}`;
  const policy = await client.call("GET", `/v1/policy${query}`, policySchema);
  context.terminal.result(policy, () => policy.text.replace(/\n$/, ""));
}

async function checkPolicy(context: Context, file: string, flags: AdminFlags): Promise<void> {
  const { terminal } = context;
  const text = await readPolicyFile(file, terminal.surroundings.stdin);
  const client = await adminClient(context, flags);
  const check = await client.call("POST", "/v1/policy/check", policyCheckSchema, { text });
  terminal.result(check, () => formatCheck(file, check));
  context.exitCode = check.ok ? 0 : 2;
}

async function setPolicy(context: Context, file: string, flags: SetFlags): Promise<void> {
  const { terminal } = context;
  const text = await readPolicyFile(file, terminal.surroundings.stdin);
  const client = await adminClient(context, flags);
  const body = {
    text,
    author: flags.author ?? userInfo().username,
    ...(flags.reason === undefined ? {} : { reason: flags.reason }),
    ...(flags.expect === undefined ? {} : { expectVersion: flags.expect }),
  };
  try {
    const policy = await client.call("PUT", "/v1/policy", policySchema, body);
    terminal.result(policy, () => {
      const changes = policy.diff
        .split("\n")
        .filter((line) => /^[+-]/.test(line) && !/^(?:\+\+\+|---)/.test(line)).length;
      return `policy version ${policy.version} is in force (${changes} changed ${changes === 1 ? "line" : "lines"})`;
    });
  } catch (error) {
    if (error instanceof AdminApiError && !terminal.json)
      for (const diagnostic of error.diagnostics) terminal.note(formatDiagnostic(file, diagnostic));
    throw error;
  }
}

/** `policy.jsonc:12:9 error: …`, the form that editors jump to. */
export function formatDiagnostic(file: string, diagnostic: Diagnostic): string {
  const { line, column, path, hint } = diagnostic;
  const where = line === undefined ? file : `${file}:${line}${column === undefined ? "" : `:${column}`}`;
  const inside = path === undefined || path === "" ? "" : `${printable(path)}: `;
  const mend = hint === undefined ? "" : `\n  hint: ${printable(hint)}`;
  return `${where} ${diagnostic.severity}: ${inside}${printable(diagnostic.message)}${mend}`;
}

function formatCheck(file: string, check: PolicyCheck): string {
  const lines = check.diagnostics.map((diagnostic) => formatDiagnostic(file, diagnostic));
  for (const test of check.tests) {
    const name = `${printable(test.from)} to ${printable(test.to)}`;
    lines.push(
      test.passed
        ? `passed: ${name} is ${test.got === "allow" ? "allowed" : "denied"}: ${printable(test.reason)}`
        : `FAILED: ${name} should be ${test.expect === "allow" ? "allowed" : "denied"}, but is not: ` +
            printable(test.reason),
    );
  }
  const passed = check.tests.filter((test) => test.passed).length;
  lines.push(check.ok ? `ok: ${passed} of ${check.tests.length} tests passed` : "not accepted");
  return lines.join("\n");
}
