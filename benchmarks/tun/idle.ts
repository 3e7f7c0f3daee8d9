// What a daemon costs that has 100 peers and nothing to carry: keepalives every 25 s, and a new handshake with each
// peer every two minutes.
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Program } from "../../test/scripts/program.ts";
import { Bed, OVERLAY, TUNNEL_MTU, UNDERLAY } from "./bed.ts";
import { newKeyPair, type StartEnd, wireguardConfig } from "./contenders.ts";
import type { CrowdOptions } from "./crowd.ts";
import { cpuSecondsOf } from "./process-tree.ts";

const CROWD = fileURLToPath(new URL("crowd.ts", import.meta.url));
const PEERS = 100;
const FIRST_PORT = 20_000;
const KEEPALIVE_SECONDS = 25;
const SETTLE_MS = 2_000;

/** Percent of one core, over `seconds` after every tunnel is up: 125 hold a rekey of each. */
export async function idleCpuPercent(startEnd: StartEnd, seconds: number): Promise<number> {
  await using bed = new Bed();
  const own = newKeyPair();
  const peers = Array.from({ length: PEERS }, (_, index) => ({
    ...newKeyPair(),
    address: `10.78.1.${index + 1}`,
    port: FIRST_PORT + index,
  }));
  const options: CrowdOptions = { peers, publicKey: own.publicKey, address: OVERLAY.a, mtuBytes: TUNNEL_MTU };
  const crowd = new Program("the crowd", process.execPath, [CROWD, JSON.stringify(options)], {
    namespace: bed.namespaces.b,
  });
  await crowd.event("the ready line", (record) => record["ready"] ?? undefined);
  const config = wireguardConfig(
    own.privateKey,
    peers.map(({ publicKey, address, port }) => ({
      publicKey,
      address,
      endpoint: `${UNDERLAY.b}:${port}`,
      keepaliveSeconds: KEEPALIVE_SECONDS,
    })),
  );
  const { pid } = await startEnd(bed, "a", config, {});
  await crowd.event(`${PEERS} tunnels`, ({ up }) => (up === PEERS ? up : undefined));
  await delay(SETTLE_MS);
  const before = cpuSecondsOf([pid]);
  await delay(seconds * 1_000);
  return ((cpuSecondsOf([pid]) - before) / seconds) * 100;
}
