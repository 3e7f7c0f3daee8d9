// kill -9 at any moment: what was acknowledged is there after the next start, the audit chain verifies, and numbers
// never go back.
import { afterAll, expect, test } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import {
  auditSchema,
  policySchema,
  revocationSchema,
  sessionListSchema,
  tokenCreatedSchema,
  tokenListSchema,
} from "../../src/coordinator/http/schema.ts";
import { ChildCoordinator } from "../coordinator/child.ts";
import type { TestPeer } from "../coordinator/network.ts";

const ROUNDS = 20;
const coordinator = new ChildCoordinator();
afterAll(async () => {
  await coordinator.end();
});

const acknowledged = {
  tokens: new Set<string>(),
  sessions: new Map<string, TestPeer>(),
  revoked: new Set<string>(),
  policyVersion: 0,
  serial: 0,
};

/** Changes one after another until the coordinator is gone. */
async function makeTokens(): Promise<void> {
  for (;;) {
    const created = await coordinator.admin(tokenCreatedSchema, "POST", "/v1/tokens", { as: "agent:many" });
    acknowledged.tokens.add(created.id);
  }
}

async function makePolicies(): Promise<void> {
  for (;;) {
    const text = JSON.stringify({ groups: { all: [`agent:a${acknowledged.policyVersion}`] } });
    const { version } = await coordinator.admin(policySchema, "PUT", "/v1/policy", { text });
    expect(version).toBeGreaterThan(acknowledged.policyVersion);
    acknowledged.policyVersion = version;
  }
}

async function join(): Promise<void> {
  for (let n = 0; ; n++) {
    const peer = await coordinator.peer("node:joins");
    peer.client.on("welcome", ({ session }) => acknowledged.sessions.set(session, peer));
    peer.client.start();
    await Promise.race([peer.client.ready, peer.until(() => peer.problems.length > 0, "it fails")]);
    acknowledged.serial = Math.max(acknowledged.serial, peer.leases.at(-1)?.serial ?? 0);
    await peer.client.stop();
    if (peer.problems.length > 0) return;
    if (n % 3 !== 0) continue;
    const selector = `session:${peer.session}`;
    const { sessions } = await coordinator.admin(revocationSchema, "POST", "/v1/revocations", { selector });
    for (const session of sessions) acknowledged.revoked.add(session);
  }
}

async function check(round: number): Promise<void> {
  const { tokens } = await coordinator.admin(tokenListSchema, "GET", "/v1/tokens");
  const known = new Set(tokens.map(({ id }) => id));
  expect(
    [...acknowledged.tokens].filter((id) => !known.has(id)),
    `round ${round}`,
  ).toEqual([]);
  const { sessions } = await coordinator.admin(sessionListSchema, "GET", "/v1/sessions?all=true");
  const states = new Map(sessions.map(({ id, state }) => [id, state]));
  for (const session of acknowledged.sessions.keys()) {
    expect(states.has(session), `round ${round}: ${session}`).toBe(true);
    if (acknowledged.revoked.has(session)) expect(states.get(session)).toBe("revoked");
  }
  const { version } = await coordinator.admin(policySchema, "GET", "/v1/policy");
  expect(version).toBeGreaterThanOrEqual(acknowledged.policyVersion);
  acknowledged.policyVersion = version;
  const { verified } = await coordinator.admin(auditSchema, "GET", "/v1/audit");
  expect(verified).toBe(true);
}

test("twenty kills lose nothing that was acknowledged", async () => {
  const random = new SeededRandom(9);
  await coordinator.start();
  for (let round = 0; round < ROUNDS; round++) {
    const work = [makeTokens(), makePolicies(), join(), join()].map((each) => each.catch(() => undefined));
    await new Promise((resolve) => setTimeout(resolve, 100 + random.below(700)));
    await coordinator.kill();
    await Promise.all(work);
    await coordinator.start();
    await check(round);
  }
  expect(acknowledged.tokens.size).toBeGreaterThan(ROUNDS);
  expect(acknowledged.sessions.size).toBeGreaterThan(ROUNDS / 2);
  expect(acknowledged.revoked.size).toBeGreaterThan(0);
  const again = await coordinator.peer("agent:last");
  again.client.start();
  await again.client.ready;
  expect(again.leases[0]!.serial).toBeGreaterThan(acknowledged.serial);
  await again.client.stop();
});
