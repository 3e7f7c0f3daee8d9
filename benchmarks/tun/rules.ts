// `npm run bench -- rules`: two nodes of a network with `up --tun`, under one rule and under 10,000, in turn: a TCP
// stream, and connections, each of which is a new flow at both ends.
import { deviceName, UpScene } from "../../test/interop/tun-up-scene.ts";
import { needsIn, requireTool } from "../../test/needs.ts";
import { Program, until } from "../../test/scripts/program.ts";
import type { BenchResult } from "../result.ts";
import { allowManyConnections } from "./bed.ts";
import { canLoad, connectionRates, type Ways } from "./load.ts";
import { median, pairedRatio } from "./statistics.ts";
import { parseIperf } from "./tool-output.ts";

const RULES = 10_000;
const ROUNDS = 5;
const TCP_SECONDS = 4;
const CONNECT_SECONDS = 2;
const IPERF_PORT = "5201";
const OPEN = ["node:b tcp:5201", "node:b tcp:7000", "node:b icmp"];
const FIRST_PORT = 10_000;

const grant = (id: string, to: readonly string[]) => ({ id, from: "node:a", to });
const FEW = { grants: [grant("open", OPEN)] };
/** Of other ports, before the one that counts. */
const MANY = {
  grants: [
    ...Array.from({ length: RULES - 1 }, (_, i) => grant(`other-${i}`, [`node:b tcp:${FIRST_PORT + i}`])),
    grant("open", OPEN),
  ],
};

interface Sample {
  readonly gigabits: number;
  readonly connections: number;
}

async function sample(ways: Ways & { readonly address: string }): Promise<Sample> {
  const args = ["-c", ways.address, "-p", IPERF_PORT, "-t", String(TCP_SECONDS), "-J"];
  const { stdout } = await ways.namespaces.a.run(requireTool("iperf3"), args, { check: false });
  const [connections] = await connectionRates(ways, [16], CONNECT_SECONDS);
  return { gigabits: parseIperf(stdout).bitsPerSecond / 1e9, connections: connections! };
}

export async function run(): Promise<BenchResult[]> {
  const tell = (line: string): void => void process.stderr.write(line);
  if (!needsIn(process.env, tell, "npm run bench -- rules", ["root", "netns", "tun", "iperf3", "perl"])) return [];
  if (!canLoad()) return [];
  await using scene = await UpScene.start(["a", "b"], FEW);
  const namespaces = { a: scene.machine("a"), b: scene.machine("b") };
  for (const namespace of Object.values(namespaces)) allowManyConnections(namespace);
  const b = await scene.network.join("node:b", ["--tun", deviceName("b")], { namespace: namespaces.b });
  await scene.network.join("node:a", ["--tun", deviceName("a")], { namespace: namespaces.a });
  const address = b.addresses.find((text) => !text.includes(":"))!;
  const server = new Program("iperf3", requireTool("iperf3"), ["-s", "-p", IPERF_PORT, "--forceflush"], {
    namespace: namespaces.b,
  });
  await until("iperf3's server", () => server.output.includes("listening"));
  const samples: Record<"few" | "many", Sample[]> = { few: [], many: [] };
  for (let round = 0; round <= ROUNDS; round++) {
    for (const which of round % 2 === 0 ? (["few", "many"] as const) : (["many", "few"] as const)) {
      const { version } = await scene.network.setPolicy(which === "few" ? FEW : MANY);
      await until("the policy at b", async () => (await b.status()).policyVersion === version);
      const taken = await sample({ namespaces, address });
      if (round > 0) samples[which].push(taken); // the first of each is not compiled yet
    }
  }
  const of = (which: "few" | "many", key: keyof Sample) => samples[which].map((one) => one[key]);
  return (["gigabits", "connections"] as const).flatMap((key): BenchResult[] => {
    const [few, many] = [of("few", key), of("many", key)];
    const what = key === "gigabits" ? "TCP, 1 stream" : "TCP connections, 16 at a time";
    const shown = (values: readonly number[]): string => values.map((value) => value.toPrecision(3)).join(" ");
    tell(`${what}: 1 rule ${shown(few)}, ${RULES} ${shown(many)}\n`);
    const unit = key === "gigabits" ? "Gb/s" : "1/s";
    return [
      { name: `up --tun: ${what}, 1 rule`, value: median(few) ?? 0, unit },
      { name: `up --tun: ${what}, ${RULES.toLocaleString("en")} rules`, value: median(many) ?? 0, unit },
      { name: `up --tun: ${what}, many rules to one`, value: pairedRatio(many, few) ?? 0, unit: "×" },
    ];
  });
}
