// Starts engine-end.ts in a namespace and listens to it.
import { fileURLToPath } from "node:url";
import type { Namespace } from "../namespaces.ts";
import { Program, until } from "../scripts/program.ts";
import type { EngineEndOptions, EngineReport } from "./engine-end.ts";
import type { StackPeer } from "./engine-stack.ts";

const END = fileURLToPath(new URL("engine-end.ts", import.meta.url));

export class EngineEnd {
  readonly program: Program;

  private constructor(program: Program) {
    this.program = program;
  }

  static async start(namespace: Namespace, options: EngineEndOptions): Promise<EngineEnd> {
    const program = new Program("our engine", process.execPath, [END, JSON.stringify(options)], { namespace });
    await program.event("the ready line", (record) => record["ready"]);
    return new EngineEnd(program);
  }

  /** Other peers for the outer tunnel. */
  apply(peers: readonly StackPeer[]): void {
    this.program.child.stdin?.write(`${JSON.stringify({ peers })}\n`);
  }

  /** The first report from now on that `wanted` holds of. */
  async until(what: string, wanted: (report: EngineReport) => boolean, patienceMs?: number): Promise<EngineReport> {
    let from = this.program.stdoutLines.length;
    const ask = (): EngineReport | undefined => {
      if (!this.program.alive) throw new Error(`our engine is gone: ${this.program.tail}`);
      const lines = this.program.stdoutLines.slice(from);
      from += lines.length;
      return lines.map((line) => JSON.parse(line) as EngineReport).find(wanted);
    };
    return await until(what, ask, patienceMs);
  }
}
