// Starts wireguard-end.ts in a namespace and listens to it.
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Namespace } from "../namespaces.ts";
import { until } from "../scripts/program.ts";
import type { EndCommand, EndOptions, EndReport } from "./wireguard-end.ts";

const END = fileURLToPath(new URL("wireguard-end.ts", import.meta.url));

export class OurEnd {
  readonly #child: ChildProcess;
  #latest: EndReport | undefined;
  #errors = "";

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#errors = (this.#errors + text).slice(-4_000);
    });
  }

  /** Its port is open when this resolves. */
  static async start(namespace: Namespace, options: EndOptions): Promise<OurEnd> {
    const child = namespace.spawn(process.execPath, [END, JSON.stringify(options)], { stdio: "pipe" });
    const end = new OurEnd(child);
    const lines = createInterface({ input: child.stdout! });
    const ended = once(child, "exit").then(() => {
      throw new Error(`our end did not start: ${end.#errors}`);
    });
    ended.catch(() => undefined);
    await Promise.race([once(lines, "line"), ended]);
    lines.on("line", (line) => {
      end.#latest = JSON.parse(line) as EndReport;
    });
    return end;
  }

  /** Its last report, at most a second old. */
  latest(): EndReport {
    if (this.#latest === undefined || this.#child.exitCode !== null)
      throw new Error(`our end is gone: ${this.#errors}`);
    return this.#latest;
  }

  /** The first report from now on that `wanted` holds of. */
  async until(what: string, wanted: (report: EndReport) => boolean, patienceMs?: number): Promise<EndReport> {
    const before = this.#latest;
    const ask = (): EndReport | undefined => {
      if (this.#child.exitCode !== null) throw new Error(`our end is gone: ${this.#errors}`);
      return this.#latest !== before && wanted(this.latest()) ? this.latest() : undefined;
    };
    return await until(what, ask, patienceMs);
  }

  tell(command: EndCommand): void {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
  }
}
