// Runs inside a network namespace: a TUN device with the userspace stack behind it, and in that the resolver of
// `up --tun` with the netmap of test/peer/world.ts and one service of 100 gateways. Argument: JSON { journalFolder },
// or nothing; with it the names are entered into systemd-resolved. Prints { ready, why, device }; ends by SIGTERM, a
// line on stdin takes the names out first.
import { spawnSync } from "node:child_process";
import { SeededRandom } from "../../src/base/random.ts";
import { UserspaceStack } from "../../src/netstack/stack.ts";
import { enterHostDns } from "../../src/peer/tun/host-dns.ts";
import { hostTools } from "../../src/peer/tun/host-tools.ts";
import { OverlayNames, resolverAddressesOf } from "../../src/peer/tun/overlay-names.ts";
import { OverlayResolver } from "../../src/peer/tun/overlay-resolver.ts";
import { GW, GW_ADDRESS, netmapOf } from "../peer/world.ts";
import { PlainTun } from "./plain-tun.ts";

const DEVICE = "wbnames0";
const V4 = "10.99.0.6";
const options = process.argv[2] === undefined ? undefined : (JSON.parse(process.argv[2]) as { journalFolder: string });

const base = netmapOf();
const [staging] = base.services;
const gateways = Array.from({ length: 100 }, (_, i) => ({ session: GW, address: `fd00:17:0:2::${i + 1}` }));
const view = netmapOf({
  self: { ...base.self, addresses: [GW_ADDRESS, V4] }, // node:gw
  peers: [],
  services: [...base.services, { ...staging!, name: "many", gateways }],
});

const tun = PlainTun.open(DEVICE);
for (const words of [
  `addr add ${GW_ADDRESS}/128 dev ${DEVICE}`,
  `addr add ${V4}/32 dev ${DEVICE}`,
  `link set ${DEVICE} mtu 1420 up`,
  `route add ${view.network.ula} dev ${DEVICE}`,
  `route add ${view.network.pool4} dev ${DEVICE}`,
]) {
  const ran = spawnSync("ip", words.split(" "), { encoding: "utf8" });
  if (ran.status !== 0) throw new Error(`ip ${words}: ${ran.stderr}`);
}

const startMs = Date.now();
const nowMs = (): number => startMs + performance.now();
const stack = new UserspaceStack({
  random: new SeededRandom(5),
  mtuBytes: 1420,
  handler: { output: (_now, buffer, offset, length) => void tun.write(buffer.subarray(offset, offset + length)) },
});
const addresses = resolverAddressesOf(view);
stack.setLocalAddresses(addresses);
const turns = { nowMs, turn: <T>(work: (now: number) => T): T => work(nowMs()) };
OverlayResolver.open({ stack, turns, netmap: () => view, addresses });

const packet = new Uint8Array(65_536);
setInterval(() => {
  for (let length = tun.read(packet); length > 0; length = tun.read(packet)) {
    stack.handlePacket(nowMs(), packet, 0, length);
  }
  stack.handleTimeout(nowMs());
}, 1);

const print = (record: object): void => void process.stdout.write(`${JSON.stringify(record)}\n`);
const logger = { info: () => undefined, warn: (fields: object) => print({ warning: fields }) };
// Of a namespace that the test made, with services of its own in it.
const tools = { ...hostTools, isOfServices: () => true };
const plan = { device: DEVICE, servers: addresses, zones: new OverlayNames(view).zones };
const names = options === undefined ? undefined : await enterHostDns(plan, { ...options, logger, tools });
print({ ready: true, why: names?.why ?? null, device: DEVICE });
process.stdin.once("data", () => {
  void names?.leave().then(() => print({ left: true }));
});
