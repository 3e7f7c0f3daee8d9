// Bugs of others' clients: what a program on the machine asks for must be judged as its packets would be.
import { expect, test } from "vitest";
import { formatAddress } from "../../src/base/address.ts";
import { HOUR_MS, MINUTE_MS, SECOND_MS } from "../../src/base/units.ts";
import { DenialFeed } from "../../src/peer/denial-feed.ts";
import { PeerViews } from "../../src/peer/peer-views.ts";
import { give, type Station, texts, udpPacket, World } from "../engine/engine-world.ts";

interface Scene {
  readonly world: World;
  readonly agent: Station;
  readonly gateway: Station;
  readonly views: PeerViews;
  say(text: string): void;
}

/** An agent that has talked to a gateway with a short lease, and the view that its SOCKS5 port has. */
function scene(gatewayLeaseMs: number): Scene {
  const world = new World();
  const [agent, gateway] = [world.add("agent"), world.add("gateway")];
  world.lease(agent, 24 * HOUR_MS);
  world.lease(gateway, gatewayLeaseMs);
  const rule = { id: "g", action: "allow" as const, from: agent, to: gateway, protocol: "udp" as const };
  world.apply([{ ...rule, ports: [[53, 53]] }]);
  const views = new PeerViews({
    engine: agent.engine,
    turns: { nowMs: () => world.nowMs, turn: (work) => work(world.nowMs) },
    denials: new DenialFeed(),
    ownAddresses: () => [agent.address],
    ownSession: () => agent.session,
    tellDenial: (session, record) => agent.engine.tellDenial(world.nowMs, session, record),
  });
  const say = (text: string): void => {
    give(world, agent, udpPacket(agent.address, gateway.address, 4_000, 53, text));
    world.run(SECOND_MS);
  };
  return { world, agent, gateway, views, say };
}

const asked = ({ views, gateway }: Scene) => {
  const { allowed, reason } = views.judgeOutbound(gateway.address, "udp", 53);
  const host = views.judgeOutboundHost(gateway.session, "db.internal", "tcp", 5_432);
  return { allowed, reason, host: host.reason };
};

// https://github.com/juanfont/headscale/issues/1851: a node that had expired stayed out when its expiry was taken back.
// https://github.com/tailscale/tailscale/issues/3292: traffic went on to a router whose key had expired. A gateway
// renews its lease while nobody talks to it and shows it to nobody: the next dial must make the tunnel for that.
test("a gateway whose lease ended while nobody talked to it is dialled again (headscale#1851)", () => {
  const it = scene(10 * MINUTE_MS);
  it.say("first");
  expect(asked(it)).toEqual({ allowed: true, reason: "ALLOWED_BY_RULE", host: "NO_GRANT" });
  it.world.run(HOUR_MS);
  it.world.lease(it.gateway, 10 * MINUTE_MS);
  expect(asked(it)).toEqual({ allowed: true, reason: "ALLOWED_BY_RULE", host: "NO_GRANT" });
  it.say("an hour later");
  expect(texts(it.gateway)).toEqual(["first", "an hour later"]);
});

test("while its tunnel stands, an ended lease closes it, for a dial and for packets alike (tailscale#3292)", () => {
  const it = scene(MINUTE_MS);
  it.say("first");
  it.world.run(MINUTE_MS);
  expect(asked(it)).toEqual({ allowed: false, reason: "LEASE_ENDED", host: "LEASE_ENDED" });
  it.say("late");
  expect(texts(it.gateway)).toEqual(["first"]);
  expect(it.agent.denied.at(-1)).toMatchObject({ reason: "LEASE_ENDED" });
  expect(formatAddress(it.agent.denied.at(-1)!.destination)).toBe(formatAddress(it.gateway.address));
});
