// One coordinator that is killed again and again while it is written to: what it acknowledged is written down here and
// looked for after each start.
import { expect } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import {
  auditSchema,
  identityListSchema,
  policySchema,
  revocationSchema,
  sessionListSchema,
  tokenCreatedSchema,
  tokenListSchema,
  tokenRevokedSchema,
} from "../../src/coordinator/http/schema.ts";
import { ChildCoordinator } from "../coordinator/child.ts";

const MAIN_STARTS_WITHIN_MS = 500; // about: kills in this time hit it while it starts

export class KillLane {
  readonly #coordinator: ChildCoordinator;
  readonly #random: SeededRandom;
  readonly #what: string;
  readonly #tokens = new Map<string, "made" | "revoked">();
  readonly #sessions = new Map<string, "active" | "revoked">();
  readonly #removed = new Set<string>();
  #policyVersion = 0;
  #serial = 0;
  #round = 0;
  changes = 0;

  constructor(main: string, seed: number) {
    this.#coordinator = new ChildCoordinator(main);
    this.#random = new SeededRandom(seed);
    this.#what = `seed ${seed}`;
  }

  /** Kills it `rounds` times, one in six while it starts, and looks after each. */
  async run(rounds: number): Promise<void> {
    if (this.#random.chance(0.5))
      await this.#killAtStart(); // perhaps while the network is made
    else this.#round--;
    while (++this.#round < rounds) {
      if (this.#random.chance(1 / 6)) {
        await this.#killAtStart();
        continue;
      }
      await this.#coordinator.start();
      if (this.#round > 0) await this.#check();
      const work = [this.#makeTokens(), this.#makePolicies(), this.#join(), this.#revokeTokens(), this.#remove()];
      const quiet = work.map((each) => each.catch(() => undefined)); // each ends when the coordinator is gone
      await new Promise((resolve) => setTimeout(resolve, this.#random.below(160)));
      await this.#coordinator.kill();
      await Promise.all(quiet);
    }
    await this.#coordinator.start();
    await this.#check();
    const last = await this.#coordinator.peer("agent:last");
    last.client.start();
    await last.client.ready;
    expect(last.leases[0]!.serial, this.#what).toBeGreaterThan(this.#serial);
    await last.client.stop();
  }

  async end(): Promise<void> {
    await this.#coordinator.end();
  }

  async #killAtStart(): Promise<void> {
    await this.#coordinator.startAndKill(this.#random.below(MAIN_STARTS_WITHIN_MS));
  }

  async #makeTokens(): Promise<void> {
    for (;;) {
      const { id } = await this.#coordinator.admin(tokenCreatedSchema, "POST", "/v1/tokens", { as: "agent:many" });
      this.#tokens.set(id, "made");
      this.changes++;
    }
  }

  async #revokeTokens(): Promise<void> {
    for (;;) {
      const { id } = await this.#coordinator.admin(tokenCreatedSchema, "POST", "/v1/tokens", { as: "user:ana" });
      await this.#coordinator.admin(tokenRevokedSchema, "DELETE", `/v1/tokens/${id}`);
      this.#tokens.set(id, "revoked");
      this.changes += 2;
    }
  }

  async #makePolicies(): Promise<void> {
    for (;;) {
      const text = JSON.stringify({ groups: { all: [`agent:a${this.#policyVersion}`] } });
      const { version } = await this.#coordinator.admin(policySchema, "PUT", "/v1/policy", { text });
      this.#policyVersion = Math.max(version, this.#policyVersion);
      this.changes++;
    }
  }

  async #remove(): Promise<void> {
    for (let n = 0; ; n++) {
      const name = `node:r${this.#round}-${n}`;
      await this.#coordinator.admin(tokenCreatedSchema, "POST", "/v1/tokens", { as: name });
      await this.#coordinator.admin(revocationSchema, "DELETE", `/v1/identities/${name}`);
      this.#removed.add(name);
      this.changes += 2;
    }
  }

  /** Enrols, and revokes every second one. */
  async #join(): Promise<void> {
    for (let n = 0; ; n++) {
      const peer = await this.#coordinator.peer("node:joins");
      peer.client.on("welcome", ({ session }) => {
        this.#sessions.set(session, "active");
        this.changes++;
      });
      peer.client.start();
      await Promise.race([peer.client.ready, peer.until(() => peer.problems.length > 0, "it fails")]);
      this.#serial = Math.max(this.#serial, peer.leases.at(-1)?.serial ?? 0);
      await peer.client.stop();
      if (peer.problems.length > 0) return;
      if (n % 2 !== 0) continue;
      const selector = `session:${peer.session}`;
      await this.#coordinator.admin(revocationSchema, "POST", "/v1/revocations", { selector });
      this.#sessions.set(peer.session, "revoked");
      this.changes++;
    }
  }

  async #check(): Promise<void> {
    const what = `${this.#what} round ${this.#round}`;
    const { tokens } = await this.#coordinator.admin(tokenListSchema, "GET", "/v1/tokens");
    const tokenStates = new Map(tokens.map(({ id, state }) => [id, state]));
    for (const [id, state] of this.#tokens) {
      expect(tokenStates.has(id), `${what}: token ${id}`).toBe(true);
      if (state === "revoked") expect(tokenStates.get(id), `${what}: token ${id}`).toBe("revoked");
    }
    const { sessions } = await this.#coordinator.admin(sessionListSchema, "GET", "/v1/sessions?all=true");
    const sessionStates = new Map(sessions.map(({ id, state }) => [id, state]));
    for (const [id, state] of this.#sessions) {
      expect(sessionStates.has(id), `${what}: session ${id}`).toBe(true);
      if (state === "revoked") expect(sessionStates.get(id), `${what}: session ${id}`).toBe("revoked");
    }
    const { identities } = await this.#coordinator.admin(identityListSchema, "GET", "/v1/identities");
    const gone = new Set(identities.filter(({ removedMs }) => removedMs !== undefined).map(({ name }) => name));
    const listed = new Set(identities.map(({ name }) => name));
    for (const name of this.#removed)
      expect(gone.has(name) || !listed.has(name), `${what}: ${name} is removed`).toBe(true);
    const { version } = await this.#coordinator.admin(policySchema, "GET", "/v1/policy");
    expect(version, what).toBeGreaterThanOrEqual(this.#policyVersion);
    this.#policyVersion = version;
    const { verified } = await this.#coordinator.admin(auditSchema, "GET", "/v1/audit");
    expect(verified, `${what}: the audit chain`).toBe(true);
  }
}
