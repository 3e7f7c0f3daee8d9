// What a gateway serves: only what its netmap says and its own command line offers, both. And what that line may say.
import { describe, expect, it } from "vitest";
import { parseAddress } from "../../src/base/address.ts";
import type { NetmapView, ServeEntry } from "../../src/control/netmap.ts";
import { findHostTarget, findTarget, type GatewayOffers, parseOffers } from "../../src/peer/gateway-offers.ts";

const SERVICE = "fd00:77::53";
const serve = (more: Partial<ServeEntry> = {}): ServeEntry => ({
  name: "db",
  address: SERVICE,
  protocol: "tcp",
  ports: [[5432, 5432]],
  host: "10.20.0.5",
  ...more,
});

/** The parts of a netmap that are read here. */
const netmap = (serves: readonly ServeEntry[], routes: readonly string[] = []): NetmapView =>
  ({ serves, routes: routes.map((destination) => ({ destination })) }) as unknown as NetmapView;

const offers = (words: { routes?: string[]; serves?: string[] }): GatewayOffers =>
  parseOffers({ routes: [], serves: [], exposes: [], ...words });
const ALL = offers({ serves: ["all"], routes: ["10.20.0.0/16", "host:*.internal"] });

const target = (own: GatewayOffers, map: NetmapView | undefined, to: string, port: number, protocol = "tcp" as const) =>
  findTarget(own, map, parseAddress(to)!, protocol, port);

describe("an address", () => {
  it("is served by its protocol and port", () => {
    const at = (port: number, protocol: "tcp" | "udp", entry = serve()) =>
      findTarget(ALL, netmap([entry]), parseAddress(SERVICE)!, protocol, port)?.label;
    expect(at(5432, "tcp")).toBe("service:db");
    expect(at(5431, "tcp")).toBeUndefined();
    expect(at(5432, "udp")).toBeUndefined();
    expect(at(5432, "udp", serve({ protocol: "any" }))).toBe("service:db");
    expect(at(1, "tcp", serve({ ports: [] }))).toBe("service:db");
  });

  it("is nothing of ours without a netmap, or where an entry's own address can't be read", () => {
    expect(target(ALL, undefined, SERVICE, 5432)).toBeUndefined();
    expect(target(ALL, netmap([serve({ address: "?" }), serve()]), SERVICE, 5432)?.label).toBe("service:db");
    expect(target(ALL, netmap([serve({ address: "fd00:77::54" })]), SERVICE, 5432)).toBeUndefined();
  });

  it("under a route is dialled when netmap and command line both have the route", () => {
    const map = netmap([], ["host:*.internal", "10.20.0.0/16"]);
    expect(target(ALL, map, "10.20.0.9", 22)).toEqual({
      label: undefined,
      to: { host: "10.20.0.9", port: 22 },
      exemption: "none",
    });
    expect(target(ALL, map, "10.21.0.9", 22)).toBeUndefined();
    expect(target(ALL, netmap([], ["10.21.0.0/16"]), "10.20.0.9", 22)).toBeUndefined();
    expect(target(offers({ routes: ["10.21.0.0/16"] }), map, "10.20.0.9", 22)).toBeUndefined();
  });
});

describe("a name", () => {
  it("is dialled when netmap and command line both have a pattern for it", () => {
    const map = netmap([], ["host:*.internal", "10.20.0.0/16"]);
    const ask = (own: GatewayOffers, name: string) => findHostTarget(own, map, name, 443)?.label;
    expect(ask(ALL, "a.internal")).toBe("host:a.internal");
    expect(ask(offers({}), "a.internal")).toBeUndefined();
    expect(ask(offers({ routes: ["host:*.example"] }), "a.example")).toBeUndefined();
    expect(findHostTarget(ALL, undefined, "a.internal", 443)).toBeUndefined();
  });
});

describe("what a service's target is exempt from", () => {
  const exemption = (word: string, entry = serve()) =>
    target(offers({ serves: [word] }), netmap([entry]), SERVICE, 5432)?.exemption;

  it("follows from who said where it is, and whether a resolver has a say in it", () => {
    expect(exemption("db")).toBe("service"); // the policy's literal address
    expect(exemption("db", serve({ host: "db.internal" }))).toBe("none");
    for (const word of ["db=127.0.0.1:5432", "db=localhost:5432", "db=5432", "db=/run/db.sock", "db=unix:/run/db.sock"])
      expect(exemption(word), word).toBe("host");
    expect(exemption("db=db.internal:5432")).toBe("none");
  });
});

describe("the command line", () => {
  it("gives a target as address, name, port or path", () => {
    const to = (text: string) => offers({ serves: [`db=${text}`] }).serves.get("db");
    expect(to("10.0.0.5:5432")).toEqual({ host: "10.0.0.5", port: 5432 });
    expect(to("[fd00::1]:80")).toEqual({ host: "fd00::1", port: 80 });
    expect(to("LocalHost:80")).toEqual({ host: "localhost", port: 80 });
    expect(to("5432")).toEqual({ host: "127.0.0.1", port: 5432 });
    expect(to("/run/db.sock")).toEqual({ path: "/run/db.sock" });
    expect(to("unix:/run/db.sock")).toEqual({ path: "/run/db.sock" });
  });

  it.each(["", "0", "65536", "x:0", "10.0.0.5:", "[10.0.0.5]:80", "[::g]:80", "a b:80", "-x-:80", "fd00::1:80"])(
    "refuses the target %j and says what it takes",
    (text) => {
      expect(() => offers({ serves: [`db=${text}`] })).toThrow(expect.objectContaining({ code: "USAGE" }));
    },
  );

  it.each([
    ["routes", "10.20.0.5/99"],
    ["routes", "host:"],
    ["routes", "host:*."],
    ["routes", "host:a..b"],
    ["serves", "DB"],
    ["serves", "-db"],
    ["serves", "all=nowhere"],
    ["exposes", "80"],
    ["exposes", "=80"],
    ["exposes", "8080=0"],
    ["exposes", "8080=65536"],
    ["exposes", "8080=x"],
  ] as const)("refuses --%s %s", (option, text) => {
    const words = { routes: [], serves: [], exposes: [], [option]: [text] };
    expect(() => parseOffers(words)).toThrow(expect.objectContaining({ code: "USAGE" }));
  });

  it("takes patterns in any case, one that is every name, and the name all for itself", () => {
    const own = offers({ routes: ["host:*.Internal", "host:*"], serves: ["all", "all=1.2.3.4:5"] });
    expect(own.hostPatterns).toEqual(["*.internal", "*"]);
    expect(own.serveAll).toBe(true);
    expect(own.serves.get("all")).toEqual({ host: "1.2.3.4", port: 5 });
  });
});
