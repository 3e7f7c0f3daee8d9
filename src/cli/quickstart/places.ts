// Where the quickstart's processes run: all on this machine's loopback, or (as root, --isolated) each in a network
// namespace of its own, where the services' network can be reached from the gateway's namespace alone.
import { execFileSync } from "node:child_process";
import { getuid } from "node:process";
import { WirebadgeError } from "../../base/errors.ts";
import type { Processes } from "./processes.ts";

export type Role = "coordinator" | "gateway" | "services" | "coder" | "auditor";

export interface ServicePlace {
  /** Where the service listens; port 0: any free one. */
  readonly host: string;
  readonly port: number;
  /** What the policy says of it. */
  readonly at: string;
  /** The gateway's word for offering it. */
  serve(port: number): string;
}

export interface Places {
  readonly isolated: boolean;
  namespaceOf(role: Role): string | undefined;
  readonly coordinatorListen: string;
  /** The agents' words for their SOCKS entry point. */
  readonly socks: readonly string[];
  readonly staging: ServicePlace;
  readonly production: ServicePlace;
  /** What there is to say of it. */
  readonly remark: string;
}

/** On one machine the loopback ports of the services are open to every process that finds them; nobody is told them. */
export function loopbackPlaces(): Places {
  const service = (name: string): ServicePlace => ({
    host: "127.0.0.1",
    port: 0,
    at: `${name}.internal tcp:80`,
    serve: (port) => `${name}=127.0.0.1:${port}`,
  });
  return {
    isolated: false,
    namespaceOf: () => undefined,
    coordinatorListen: "127.0.0.1:0",
    socks: ["--socks", "127.0.0.1:0"],
    staging: service("staging"),
    production: service("production"),
    remark: "On one machine only policy separates them; as root, `npm start -- --isolated` uses network namespaces.",
  };
}

const PUBLIC: readonly (readonly [role: Role, address: string])[] = [
  ["coordinator", "192.0.2.1"],
  ["gateway", "192.0.2.2"],
  ["coder", "192.0.2.3"],
  ["auditor", "192.0.2.4"],
];

/** @throws FORBIDDEN when not root on Linux with iproute2 */
export function isolatedPlaces(processes: Processes): Places {
  if (process.platform !== "linux" || getuid?.() !== 0)
    throw new WirebadgeError("FORBIDDEN", "--isolated makes network namespaces, which takes root on Linux", {
      hint: "run it as root, or leave --isolated out",
    });
  const namespace = (name: string): string => `wbqs-${process.pid}-${name}`;
  const make = (name: string): void => {
    processes.tellGuard("namespace", namespace(name));
    ip(["netns", "add", namespace(name)]);
    ip(["-n", namespace(name), "link", "set", "lo", "up"]);
  };
  make("switch");
  ip(["-n", namespace("switch"), "link", "add", "br0", "type", "bridge"]);
  ip(["-n", namespace("switch"), "link", "set", "br0", "up"]);
  for (const [role, address] of PUBLIC) {
    make(role);
    const port = `to-${role.slice(0, 11)}`;
    ip([
      "-n",
      namespace("switch"),
      "link",
      "add",
      port,
      "type",
      "veth",
      "peer",
      "name",
      "eth0",
      "netns",
      namespace(role),
    ]);
    ip(["-n", namespace("switch"), "link", "set", port, "master", "br0", "up"]);
    ip(["-n", namespace(role), "address", "add", `${address}/24`, "dev", "eth0"]);
    ip(["-n", namespace(role), "link", "set", "eth0", "up"]);
  }
  make("services");
  ip([
    "-n",
    namespace("gateway"),
    "link",
    "add",
    "eth1",
    "type",
    "veth",
    "peer",
    "name",
    "eth0",
    "netns",
    namespace("services"),
  ]);
  for (const [name, device, address] of [
    ["gateway", "eth1", "10.20.0.1"],
    ["services", "eth0", "10.20.0.10"],
    ["services", "eth0", "10.20.0.11"],
  ] as const) {
    ip(["-n", namespace(name), "address", "add", `${address}/24`, "dev", device]);
    ip(["-n", namespace(name), "link", "set", device, "up"]);
  }
  const service = (name: string, host: string): ServicePlace => ({
    host,
    port: 80,
    at: `${host} tcp:80`,
    serve: () => name,
  });
  return {
    isolated: true,
    namespaceOf: namespace,
    coordinatorListen: "192.0.2.1:7470",
    socks: ["--socks"],
    staging: service("staging", "10.20.0.10"),
    production: service("production", "10.20.0.11"),
    remark: "Each runs in a network namespace of its own; only the gateway's has a way to the services.",
  };
}

function ip(words: readonly string[]): void {
  try {
    execFileSync("ip", words, { stdio: ["ignore", "ignore", "pipe"] });
  } catch (error) {
    const said = String((error as { readonly stderr?: unknown }).stderr ?? error).trim();
    throw new WirebadgeError("FORBIDDEN", `ip ${words.join(" ")}: ${said}`, {
      cause: error,
      hint: "--isolated needs iproute2 and the right to make network namespaces",
    });
  }
}
