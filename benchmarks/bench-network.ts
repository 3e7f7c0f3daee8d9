// What benchmarks of a whole network share: a coordinator and a gateway as processes, and tokens for agents that may
// reach its one service.
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { end, type Started, startWirebadge } from "./tunnel.ts";

const WIREBADGE = fileURLToPath(new URL("../bin/wirebadge", import.meta.url));
const COORDINATOR = ["coordinator", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
const run = promisify(execFile);

export class BenchNetwork {
  readonly folder = mkdtempSync(join(tmpdir(), "wirebadge-bench-"));
  readonly #started: Started[] = [];
  #adminUrl = "";

  /** "service:echo" is the local port, for every agent. */
  static async start(port: number): Promise<BenchNetwork> {
    const network = new BenchNetwork();
    try {
      await network.#start(port);
      return network;
    } catch (error) {
      await network.end();
      throw error;
    }
  }

  async token(as: string): Promise<string> {
    return String((await this.#admin(["token", "create", "--as", as]))["token"]);
  }

  async end(): Promise<void> {
    for (const { child } of this.#started.reverse()) await end(child);
    rmSync(this.folder, { recursive: true });
  }

  async #start(port: number): Promise<void> {
    const coordinator = await startWirebadge([...COORDINATOR, "--data", join(this.folder, "data")]);
    this.#started.push(coordinator);
    this.#adminUrl = String(coordinator.ready["adminUrl"]);
    const policy = {
      services: { echo: { at: `127.0.0.1 tcp:${port}`, via: ["node:gateway"] } },
      grants: [{ id: "all-agents", from: "kind:agent", to: "service:echo" }],
    };
    await this.#admin(["policy", "set", "-"], JSON.stringify(policy));
    const words = ["up", "--token-file", "-", "--state", join(this.folder, "gateway")];
    const token = await this.token("node:gateway");
    this.#started.push(await startWirebadge([...words, "--serve", `echo=127.0.0.1:${port}`], token));
  }

  async #admin(words: readonly string[], stdin = ""): Promise<Record<string, unknown>> {
    const all = [WIREBADGE, ...words, "--url", this.#adminUrl, "--data", join(this.folder, "data"), "--json"];
    const asked = run(process.execPath, all);
    asked.child.stdin?.end(stdin);
    return JSON.parse((await asked).stdout) as Record<string, unknown>;
  }
}
