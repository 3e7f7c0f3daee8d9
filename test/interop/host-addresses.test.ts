// The addresses of a TUN device change while it is up, as when a peer comes back to a network under others: its routes
// stand, or are gone with the last address of their family and can be made again, and the end undoes all of it.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { hostPrefix, type Prefix, parseAddress, parsePrefix } from "../../src/base/address.ts";
import { HostNetwork } from "../../src/peer/tun/host-network.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { namespaceTools } from "./namespace-tools.ts";

const DEVICE = "wbaddr0";
const ROUTES = ["10.77.0.0/16", "fd77::/48"].map((text) => parsePrefix(text)!);
const hosts = (...texts: readonly string[]): Prefix[] => texts.map((text) => hostPrefix(parseAddress(text)!));
const logger = { info: () => undefined, warn: () => undefined };

interface Scene {
  readonly namespace: Namespace;
  readonly folder: string;
  readonly network: HostNetwork;
  shown(): string[];
}

async function scene(lab: Lab): Promise<Scene> {
  const namespace = lab.namespace("host");
  namespace.ip("tuntap", "add", "dev", DEVICE, "mode", "tun");
  const folder = mkdtempSync(join(tmpdir(), "wirebadge-journal-"));
  const network = await HostNetwork.up(
    {
      name: DEVICE,
      mtuBytes: 1420,
      addresses: hosts("10.77.0.1", "fd77::1"),
      routes: ROUTES,
      table: "auto",
      fwMark: 0,
    },
    { journalFolder: folder, logger, tools: namespaceTools(namespace) },
  );
  const shown = (): string[] => {
    const addresses = namespace.ip("-o", "addr", "show", "dev", DEVICE).matchAll(/inet6? (\S+)/g);
    const routes = [namespace.ip("-4", "route"), namespace.ip("-6", "route")].join("\n").split("\n");
    const own = routes.filter((line) => line.includes(DEVICE)).map((line) => line.split(" ")[0]!);
    return [...[...addresses].map(([, text]) => text!), ...own];
  };
  return { namespace, folder, network, shown };
}

const both = ["10.77.0.0/16", "fd77::/48"];

test.runIf(needs("root", "tun", "netns"))(
  "other addresses take the places of the first, and the routes stand",
  async () => {
    await using lab = new Lab();
    const { namespace, folder, network, shown } = await scene(lab);
    expect(shown()).toEqual(expect.arrayContaining(["10.77.0.1/32", "fd77::1/128", ...both]));
    await network.updateAddresses(hosts("10.77.0.2", "fd77::1"));
    await network.updateRoutes(ROUTES);
    expect(shown()).toEqual(expect.arrayContaining(["10.77.0.2/32", "fd77::1/128", ...both]));
    expect(shown()).not.toContain("10.77.0.1/32");
    const journal = readdirSync(folder).map((name) => readFileSync(join(folder, name), "utf8"));
    expect(journal.join()).toContain("10.77.0.2"); // were it killed now
    await network.down();
    expect(shown()).toEqual([]);
    expect(namespace.ip("link", "show", "dev", DEVICE)).toContain("state DOWN");
    expect(readdirSync(folder)).toEqual([]);
    rmSync(folder, { recursive: true });
  },
);

test.runIf(needs("root", "tun", "netns"))(
  "a family that has gone takes its routes along and brings them back",
  async () => {
    await using lab = new Lab();
    const { folder, network, shown } = await scene(lab);
    await network.updateAddresses(hosts("fd77::1"));
    await network.updateRoutes(ROUTES.slice(1));
    expect(shown().filter((text) => text.startsWith("10."))).toEqual([]);
    expect(shown()).toContain("fd77::/48");
    await network.updateAddresses(hosts("10.77.0.9", "fd77::1"));
    await network.updateRoutes(ROUTES);
    expect(shown()).toEqual(expect.arrayContaining(["10.77.0.9/32", "fd77::1/128", ...both]));
    await network.down();
    expect(shown()).toEqual([]);
    rmSync(folder, { recursive: true });
  },
);
