// Persistent keepalive through a masquerading NAT that forgets a UDP flow after two seconds: who is behind it stays
// reachable with it, and is not without it. Both ways round. As the netns test of WireGuard, "persistent-keepalive will
// prevent connection tracking entry from expiring".
//
//   behind 10.7.0.2 ─ 10.7.0.1 router (NAT) 10.1.0.3 ─ 10.1.0.2 open
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { startStock } from "../interop/stock-wireguard.ts";
import { configText, curl, newKey, startHttp, startWirebadge } from "../interop/wg-scenario.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { until } from "../scripts/program.ts";

const PORT = 51_820;
const FORGETS_AFTER_S = 2;
const IDLE_MS = 14_000; // passive keepalives (10 s) and the NAT's memory are over by then
const OURS = "10.9.0.1";
const THEIRS = "10.9.0.2";

interface Scene {
  readonly ours: Namespace;
  readonly stock: Namespace;
}

async function start(lab: Lab, behind: "ours" | "stock", keepalive: number | undefined): Promise<Scene> {
  const [inside, router, open] = ["inside", "router", "open"].map((name) => lab.namespace(name));
  lab.link({ namespace: router!, addresses: ["10.1.0.3/24"] }, { namespace: open!, addresses: ["10.1.0.2/24"] });
  lab.link({ namespace: router!, addresses: ["10.7.0.1/24"] }, { namespace: inside!, addresses: ["10.7.0.2/24"] });
  inside!.addRoute("default", "10.7.0.1");
  router!.masquerade("eth0");
  for (const name of ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"]) {
    router!.setSysctl(`net.netfilter.${name}`, String(FORGETS_AFTER_S));
  }
  const [ours, stock] = behind === "ours" ? [inside!, open!] : [open!, inside!];
  const [us, them] = [newKey(), newKey()];
  // Only who is behind the NAT knows where the other is.
  const toOpen = { endpoint: `10.1.0.2:${PORT}`, keepalive };
  await startStock(stock, {
    addresses: [`${THEIRS}/24`],
    config: configText({
      privateKey: them.privateKey,
      listenPort: PORT,
      peers: [{ publicKey: us.publicKey, allowedIps: `${OURS}/32`, ...(behind === "stock" ? toOpen : {}) }],
    }),
  });
  await Promise.all([startHttp(stock), startHttp(ours, 7000)]);
  await startWirebadge(
    ours,
    {
      privateKey: us.privateKey,
      listenPort: PORT,
      address: `${OURS}/32`,
      peers: [{ publicKey: them.publicKey, allowedIps: `${THEIRS}/32`, ...(behind === "ours" ? toOpen : {}) }],
    },
    ["--socks", "127.0.0.1:1080", "--expose", "127.0.0.1:7000=7000"],
  );
  return { ours, stock };
}

/** From one to the other through the tunnel, given `seconds`; false: nothing came. */
async function reaches(scene: Scene, from: "ours" | "stock", seconds: number): Promise<boolean> {
  const [url, direct] = from === "ours" ? [`http://${THEIRS}:8000/`, false] : [`http://${OURS}:7000/`, true];
  const run = await curl(scene[from], ["--max-time", String(seconds), url], { direct, check: false });
  return run.code === 0;
}

const all = needs("netns", "tun", "wg", "wireguard-go", "curl", "nft");
const roles = [
  { behind: "ours", open: "stock" },
  { behind: "stock", open: "ours" },
] as const;
describe.runIf(all).concurrent.each(roles)("behind a NAT that forgets within 2 s: $behind", ({ behind, open }) => {
  test("with a persistent keepalive it is reached after any silence", async () => {
    await using lab = new Lab();
    const scene = await start(lab, behind, 1);
    await until("the first way in", () => reaches(scene, open, 10));
    await delay(IDLE_MS);
    expect(await reaches(scene, open, 30)).toBe(true);
  });

  test("without one it is not, until it speaks itself", async () => {
    await using lab = new Lab();
    const scene = await start(lab, behind, undefined);
    await until("the way out", () => reaches(scene, behind, 10));
    expect(await reaches(scene, open, 10)).toBe(true);
    await delay(IDLE_MS);
    expect(await reaches(scene, open, 4)).toBe(false);
    await until("the way out again", () => reaches(scene, behind, 20));
    await until("the way in again", () => reaches(scene, open, 10));
  });
});
