// Scripts that run ahead of `wirebadge` in each of its threads (`TunEnd.start`), for faults that nothing outside can
// make and for what only a thread itself can tell.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A data thread that throws when it is told to: in the middle of its loop, which asks for the time each round. */
export class FailingDataThread implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "wirebadge-fail-"));
  readonly #trigger = join(this.#folder, "fail");

  get script(): string {
    return `const fs = require("node:fs");
      const now = Date.now;
      const failing = () => {
        if (!fs.existsSync("${this.#trigger}")) return now();
        fs.unlinkSync("${this.#trigger}");
        throw new Error("planted");
      };
      if (!require("node:worker_threads").isMainThread) Date.now = failing;`;
  }

  fail(): void {
    writeFileSync(this.#trigger, "");
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** As where the package's prebuilt library is not for this machine. */
export const WITHOUT_KOFFI = `const Module = require("node:module");
  const load = Module._load;
  Module._load = function (name, ...rest) {
    if (name === "koffi") throw new Error("Cannot find the native Koffi module; did you bundle it correctly?");
    return load.call(this, name, ...rest);
  };`;

/** Every two seconds the data thread collects its garbage and says how much it holds: its event loop never runs. */
export const DATA_THREAD_GAUGE = `if (!require("node:worker_threads").isMainThread) {
    const fs = require("node:fs");
    require("node:v8").setFlagsFromString("--expose-gc");
    const collect = require("node:vm").runInNewContext("gc");
    const now = Date.now;
    let nextMs = now() + 2000;
    Date.now = () => {
      const nowMs = now();
      if (nowMs < nextMs) return nowMs;
      nextMs = nowMs + 2000;
      collect();
      collect();
      const { heapUsed, external } = process.memoryUsage();
      fs.writeSync(2, JSON.stringify({ event: "data-gauge", heapBytes: heapUsed + external }) + "\\n");
      return now();
    };
  }`;

export interface DataGauge {
  readonly event: "data-gauge";
  /** Once its garbage is gone. */
  readonly heapBytes: number;
}
