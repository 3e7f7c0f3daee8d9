import { expect, test } from "vitest";
import { formatRouteTarget } from "../../src/policy/destination.ts";
import { acceptOffers } from "../../src/policy/offers.ts";
import { NETWORK, policyOf, type SessionInput, worldOf } from "./named-world.ts";

const POLICY = policyOf({
  services: {
    db: { at: "10.20.0.5 tcp:5432", via: ["node:gw-1"] },
    web: { at: "10.20.0.6 tcp:80", via: ["tag:edge"] },
  },
  routes: {
    "10.20.0.0/16": { via: ["node:gw-1"] },
    "0.0.0.0/0": { via: ["node:exit"] },
    "host:*.internal": { via: ["node:gw-1"] },
  },
});

function accepted(
  name: string,
  input: SessionInput,
): { takes: string[]; refused: string[]; missing: readonly string[] } {
  const world = worldOf({ [name]: input });
  const [session] = [...world.sessions.values()];
  const offers = acceptOffers(POLICY, NETWORK, world.identities.get(name)!, session!);
  const takes = [...offers.services.map((service) => `service:${service}`), ...offers.routes.map(formatRouteTarget)];
  return { takes, refused: offers.refused.map(({ offer }) => offer), missing: offers.missing };
}

test("via lets a node serve and route what it names, and what lies inside", () => {
  expect(
    accepted("node:gw-1", { serves: ["db"], routes: ["10.20.0.0/16", "10.20.7.0/24", "host:a.internal"] }),
  ).toEqual({
    takes: ["service:db", "10.20.0.0/16", "10.20.7.0/24", "host:a.internal"],
    refused: [],
    missing: [],
  });
});

test("a more specific prefix of another's route, ::/0 and the overlay itself are refused, each by name", () => {
  const routes = ["10.20.7.0/24", "::/0", "fd77:7777:7777::5/128", "10.77.0.0/24", "host:*", "nonsense"];
  expect(accepted("node:other", { routes, serves: ["db", "no-such"] })).toEqual({
    takes: [],
    refused: [
      "service:db",
      "service:no-such",
      "10.20.7.0/24",
      "::/0",
      "fd77:7777:7777::5/128",
      "10.77.0.0/24",
      "host:*",
      "nonsense",
    ],
    missing: [],
  });
});

test("a refusal says the same of a service that exists as of one that doesn't", () => {
  const world = worldOf({ "node:other": { serves: ["db", "no-such"] } });
  const offers = acceptOffers(POLICY, NETWORK, world.identities.get("node:other")!, world.sessions.get("s_other")!);
  expect(offers.refused[0]!.reason).toBe(offers.refused[1]!.reason);
});

test("only nodes are gateways by policy, whatever tags an agent has", () => {
  expect(accepted("agent:coder", { serves: ["web"], tags: ["edge"] }).takes).toEqual([]);
  expect(accepted("node:x", { serves: ["web"], tags: ["edge"] }).takes).toEqual(["service:web"]);
});

test("`*` serves what the policy gives, and a token may allow more", () => {
  expect(accepted("node:gw-1", { serves: ["*"] }).takes).toEqual(["service:db"]);
  const mayRoute = ["192.168.0.0/16", "service:web", "host:*.lab"];
  const offered = { serves: ["*"], routes: ["192.168.1.0/24", "192.0.2.0/24", "host:x.lab"], mayRoute };
  expect(accepted("agent:coder", offered)).toMatchObject({
    takes: ["service:web", "192.168.1.0/24", "host:x.lab"],
    refused: ["192.0.2.0/24"],
  });
});

test("what the policy lists a node for by name, but it does not offer, is told to the admin", () => {
  expect(accepted("node:gw-1", {}).missing).toEqual(["service:db", "10.20.0.0/16", "host:*.internal"]);
  expect(accepted("node:exit", { routes: ["0.0.0.0/0"] })).toEqual({ takes: ["0.0.0.0/0"], refused: [], missing: [] });
});
