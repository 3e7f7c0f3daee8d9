// A network of real processes in namespaces for tests of `wirebadge up --tun`: a coordinator and peers on one switch,
// each a machine of its own.
import { fileURLToPath } from "node:url";
import { Lab, type Namespace } from "../namespaces.ts";
import { TestNetwork } from "../scripts/network.ts";
import { Program } from "../scripts/program.ts";

const TARGET = fileURLToPath(new URL("http-target.ts", import.meta.url));

export class UpScene implements AsyncDisposable {
  readonly lab: Lab;
  readonly network: TestNetwork;
  readonly #machines: ReadonlyMap<string, Namespace>;

  private constructor(lab: Lab, network: TestNetwork, machines: ReadonlyMap<string, Namespace>) {
    this.lab = lab;
    this.network = network;
    this.#machines = machines;
  }

  /** The coordinator is at 10.7.0.1, the machines at 10.7.0.2 and so on. */
  static async start(names: readonly string[], policy: unknown): Promise<UpScene> {
    const lab = new Lab();
    const all = ["coordinator", ...names];
    const machines = new Map(all.map((name) => [name, lab.namespace(name)]));
    const ends = all.map((name, at) => ({ namespace: machines.get(name)!, addresses: [`10.7.0.${at + 1}/24`] }));
    lab.bridge("switch", ends);
    try {
      const namespace = machines.get("coordinator")!;
      return new UpScene(lab, await TestNetwork.start({ policy, namespace, host: "10.7.0.1" }), machines);
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  machine(name: string): Namespace {
    const found = this.#machines.get(name);
    if (found === undefined) throw new Error(`no machine ${name}`);
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.network.close();
    await this.lab.close();
  }
}

/** UAPI sockets lie in a folder that all namespaces share: names are this process's own. */
export const deviceName = (label: string): string => `wu${label}${process.pid}`;

/** An HTTP server that serves blobs, at every address of the machine. */
export async function serveBlobs(namespace: Namespace, port: number): Promise<Program> {
  const server = new Program("target", process.execPath, [TARGET, "::", String(port)], { namespace });
  await new Promise<void>((resolve, reject) => {
    server.child.stdout?.once("data", () => resolve());
    void server.exited.then(() => reject(new Error(server.tail)));
  });
  return server;
}

/** How a TCP connection of the kernel's begins: "connected" or the error's code, and after how long. */
export async function connects(from: Namespace, host: string, port: number): Promise<{ how: string; ms: number }> {
  const script = `const at = performance.now();
    const socket = require("node:net").connect(${port}, ${JSON.stringify(host)});
    const say = (how) => { console.log(JSON.stringify({ how, ms: performance.now() - at })); process.exit(0); };
    socket.on("connect", () => say("connected")).on("error", (error) => say(error.code));
    setTimeout(() => say("nothing"), 20_000);`;
  const ran = await from.run(process.execPath, ["-e", script], { timeoutMs: 30_000 });
  return JSON.parse(ran.stdout) as { how: string; ms: number };
}

/** A client that sends a line every 20 ms and tells how its connection ended, as a JSON line. */
export function chatter(from: Namespace, host: string, port: number): Program {
  const script = `const socket = require("node:net").connect(${port}, ${JSON.stringify(host)});
    const say = (record) => console.log(JSON.stringify(record));
    let count = 0;
    socket.on("connect", () => setInterval(() => socket.write("n" + count++ + "\\n"), 20));
    socket.on("error", (error) => { say({ event: "ended", code: error.code }); process.exit(0); });
    socket.on("close", () => { say({ event: "ended", code: "closed" }); process.exit(0); });`;
  return new Program("chatter", process.execPath, ["-e", script], { namespace: from });
}
