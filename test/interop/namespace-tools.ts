// HostTools (src/peer/tun/host-tools.ts) that act on a namespace of the test, so that the host's side of a TUN device
// can be tried in the test's own process.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { type HostProgram, type HostTools, hostTools, type Ran } from "../../src/peer/tun/host-tools.ts";
import type { Namespace } from "../namespaces.ts";
import { requireTool } from "../needs.ts";

export interface NamespaceTools extends HostTools {
  /** Programs that are not there. */
  readonly missing: Set<string>;
  /** Asked before each change (a batch, a ruleset, a sysctl): a text to fail with instead of making it. */
  fail: ((what: string) => string | undefined) | undefined;
  /** What was changed, in order: a line of a batch, a ruleset's first line, KEY=VALUE. */
  readonly changes: string[];
}

export function namespaceTools(namespace: Namespace): NamespaceTools {
  const tools: NamespaceTools = {
    missing: new Set(),
    fail: undefined,
    changes: [],
    async run(program, args, input = "") {
      if (tools.missing.has(program)) return undefined;
      if (program === "nft") {
        const said = tools.fail?.(input);
        if (said !== undefined) return { code: 1, stdout: "", stderr: said };
        tools.changes.push(input.split("\n")[0] ?? "");
      }
      if (!args.includes("-batch") || args.includes("-o")) return await run(namespace, program, args, input);
      // Line by line, so that each can be made to fail.
      const keepOn = args.includes("-force");
      const family = args.filter((arg) => arg === "-4" || arg === "-6");
      let stderr = "";
      for (const [index, line] of input.split("\n").filter(Boolean).entries()) {
        const said = tools.fail?.(line);
        const ran = said === undefined ? await run(namespace, "ip", [...family, ...line.split(" ")], "") : undefined;
        if (ran?.code === 0) tools.changes.push(line);
        else stderr += `${said ?? ran?.stderr}\nCommand failed -:${index + 1}\n`;
        if (stderr !== "" && !keepOn) break;
      }
      return { code: stderr === "" ? 0 : 1, stdout: "", stderr };
    },
    has: (program) => !tools.missing.has(program),
    readSysctl: (key) => readSysctl(namespace, key),
    writeSysctl(key, value) {
      const said = tools.fail?.(`${key}=${value}`);
      if (said !== undefined) throw Object.assign(new Error(said), { code: said });
      namespace.setSysctl(key, value);
      tools.changes.push(`${key}=${value}`);
    },
    place: () => ({ ...hostTools.place(), networkNamespace: namespace.name }),
    isOfServices: () => true,
    startOf: (process) => hostTools.startOf(process),
  };
  return tools;
}

export function readSysctl(namespace: Namespace, key: string): string {
  const path = `/proc/sys/${key.replaceAll(".", "/")}`;
  const ran = spawnSync(requireTool("ip"), ["netns", "exec", namespace.name, "cat", path], { encoding: "utf8" });
  if (ran.status !== 0) throw new Error(`${key}: ${ran.stderr}`);
  return ran.stdout.trim();
}

async function run(namespace: Namespace, program: HostProgram, args: readonly string[], input: string): Promise<Ran> {
  const command = ["netns", "exec", namespace.name, requireTool(program), ...args];
  const child = spawn(requireTool("ip"), command, { stdio: "pipe" });
  const parts = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (parts.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (parts.stderr += text));
  child.stdin.on("error", () => undefined).end(input);
  const [code] = (await once(child, "close")) as [number | null];
  return { code: code ?? -1, ...parts };
}
