// A process that sets up the host's side of a TUN device and then waits to be told to end, or to be killed. Argument:
// JSON of HostNetworkEndOptions. Prints one JSON object a line.

import { HostNetwork, type TunPlan } from "../../src/peer/tun/host-network.ts";
import { type HostTools, hostTools } from "../../src/peer/tun/host-tools.ts";
import { PlainTun } from "./plain-tun.ts";

export interface HostNetworkEndOptions {
  readonly plan: TunPlan;
  readonly journalFolder: string;
  /** Makes a device that ends with this process; else it is there. */
  readonly ownTun: boolean;
  /** Stops for ever before this change, counted from 0. */
  readonly stallBefore?: number;
}

const options = JSON.parse(process.argv[2] ?? "{}") as HostNetworkEndOptions;
const print = (record: object): void => void process.stdout.write(`${JSON.stringify(record)}\n`);

let changes = 0;
const tools: HostTools = {
  ...hostTools,
  async run(program, args, input) {
    const isChange = program === "nft" || (args.includes("-batch") && !args.includes("-o"));
    if (isChange && changes++ === options.stallBefore) {
      print({ stalled: true });
      await new Promise(() => undefined);
    }
    return await hostTools.run(program, args, input);
  },
};
const logger = { info: () => undefined, warn: (fields: object) => print({ warning: fields }) };
setInterval(() => undefined, 60_000); // nothing else keeps it alive

try {
  const tun = options.ownTun ? PlainTun.open(options.plan.name) : undefined;
  const network = await HostNetwork.up(options.plan, { journalFolder: options.journalFolder, logger, tools });
  print({ ready: true, mark: network.mark });
  process.stdin.once("data", () => {
    void network.down().then(() => {
      tun?.close();
      process.exit(0);
    });
  });
} catch (error) {
  const { code, message, hint } = error as Error & { code?: string; hint?: string };
  print({ failed: code, message, hint });
  process.exit(1);
}
