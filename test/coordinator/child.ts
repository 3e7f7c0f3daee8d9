// A coordinator as a process of its own: to be killed, and to be weighed.
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { z } from "zod";
import { randomBytes } from "../../src/base/random.ts";
import { parseJoinToken } from "../../src/control/token.ts";
import { tokenCreatedSchema } from "../../src/coordinator/http/schema.ts";
import { SystemClock } from "../../src/io/clock.ts";
import { osRandom } from "../../src/io/os-random.ts";
import type { ControlClientOptions } from "../../src/peer/control-client.ts";
import { crypto, TestPeer } from "./network.ts";

const MAIN = fileURLToPath(new URL("./child-main.ts", import.meta.url));

export class ChildCoordinator {
  readonly dataDir = mkdtempSync(join(tmpdir(), "wirebadge-child-"));
  url = "";
  adminUrl = "";
  readonly #main: string;
  #child: ChildProcess | undefined;

  /** `main`: a bundle of child-main.ts, which starts faster. */
  constructor(main: string = MAIN) {
    this.#main = main;
  }

  #spawn(): ChildProcess {
    const listen = this.url === "" ? "127.0.0.1:0" : this.url.replace("http://", "");
    const execArgv = ["--expose-gc", "--disable-warning=ExperimentalWarning"];
    return fork(this.#main, [this.dataDir, listen], { execArgv, stdio: ["ignore", "inherit", "inherit", "ipc"] });
  }

  /** Killed that long after its start, ready or not. */
  async startAndKill(afterMs: number): Promise<void> {
    const child = this.#spawn();
    const gone = new Promise((resolve) => child.once("exit", resolve));
    const timer = setTimeout(() => child.kill("SIGKILL"), afterMs);
    await gone;
    clearTimeout(timer);
  }

  async start(): Promise<void> {
    const child = this.#spawn();
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      child.once("exit", (code) => reject(new Error(`the coordinator ended at once (${code})`)));
      child.once("message", (message) => {
        const ready = message as { url: string; adminUrl: string };
        this.url = ready.url;
        this.adminUrl = ready.adminUrl;
        child.removeAllListeners("exit");
        resolve();
      });
    });
  }

  /** SIGKILL, and waits until it is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  async end(): Promise<void> {
    await this.kill();
    rmSync(this.dataDir, { recursive: true, force: true });
  }

  /** Resident bytes after a collection. */
  async memoryBytes(): Promise<number> {
    return await new Promise((resolve) => {
      this.#child?.once("message", (bytes) => resolve(bytes as number));
      this.#child?.send("memory");
    });
  }

  /** Rejects when the request fails or is refused. */
  async admin<T extends z.ZodType>(shape: T, method: string, path: string, body?: unknown): Promise<z.infer<T>> {
    const token = readFileSync(join(this.dataDir, "admin.token"), "utf8").trim();
    const response = await fetch(this.adminUrl + path, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return shape.parse(await response.json());
  }

  /** A peer for a new token; not started. */
  async peer(as: string, options: Partial<ControlClientOptions> = {}): Promise<TestPeer> {
    const created = await this.admin(tokenCreatedSchema, "POST", "/v1/tokens", { as });
    const token = parseJoinToken(created.token);
    return new TestPeer({
      url: token.url,
      coordinatorKey: token.coordinatorKey,
      enrolment: { tokenId: token.id, secret: token.secret },
      signSeed: randomBytes(osRandom, 32),
      wireguardKey: randomBytes(osRandom, 32),
      crypto,
      random: osRandom,
      clock: new SystemClock(),
      software: "wirebadge test",
      ...options,
    });
  }
}
