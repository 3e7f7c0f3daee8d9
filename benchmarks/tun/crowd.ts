// Many WireGuard peers in one process, each with its own key and port: the other ends of one daemon whose idle cost is
// measured. They only answer. Started with a CrowdOptions as JSON; prints {"ready":true}, then each second how many of
// them have a tunnel: {"up":100}.
import { setTimeout as delay } from "node:timers/promises";
import { EngineStack, hostPort } from "../../test/interop/engine-stack.ts";

export interface CrowdOptions {
  readonly peers: readonly { readonly privateKey: string; readonly address: string; readonly port: number }[];
  /** The daemon. */
  readonly publicKey: string;
  readonly address: string;
  readonly mtuBytes: number;
}

const { peers, publicKey, address, mtuBytes } = JSON.parse(process.argv[2] ?? "") as CrowdOptions;
const crowd: EngineStack[] = [];
for (const { privateKey, address: own, port } of peers) {
  const one = await EngineStack.start({ privateKey, addresses: [own], mtuBytes }, hostPort(port));
  one.apply([{ publicKey, allowedIps: [`${address}/32`] }]);
  crowd.push(one);
}
process.stdout.write('{"ready":true}\n');
for (;;) {
  await delay(1_000);
  const up = crowd.filter(({ engine }) => engine.status().some((peer) => peer.lastHandshakeMs !== undefined)).length;
  process.stdout.write(`${JSON.stringify({ up })}\n`);
}
