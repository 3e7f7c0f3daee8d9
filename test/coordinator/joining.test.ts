import { afterEach, beforeEach, expect, test } from "vitest";
import { parseAddress } from "../../src/base/address.ts";
import { TestNetwork } from "./network.ts";

let network: TestNetwork;
beforeEach(async () => {
  network = await TestNetwork.start();
});
afterEach(async () => {
  await network.end();
});

test("a peer enrols by token and gets its session, a netmap and a lease", async () => {
  const peer = await network.join("agent:coder", { sponsor: "user:ana@example.com", tags: ["dev"] });
  const { self, network: entry, peers, policyVersion } = peer.view;
  expect(self.identity).toBe("agent:coder");
  expect(self.sponsor).toBe("user:ana@example.com");
  expect(self.tags).toEqual(["dev"]);
  expect(self.session).toBe(peer.session);
  expect(self.addresses).toHaveLength(2); // IPv6 first, then IPv4
  expect(peers).toEqual([]);
  expect(policyVersion).toBe(0);
  expect(entry.probes).toEqual([network.running.url.replace("http://", "")]);
  expect(peer.leases).toHaveLength(1);
  expect(peer.leases[0]!.session).toBe(peer.session);
  expect(peer.leases[0]!.lifetimeMs).toBe(300_000);
  expect(Math.abs(peer.offsetMs)).toBeLessThan(5_000);
  expect(peer.problems).toEqual([]);
  expect(peer.client.remoteAddress).toEqual(parseAddress("127.0.0.1")); // which no route may lead away
});
