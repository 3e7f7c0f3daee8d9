// The policy in force and its versions. A document comes in as text, is checked, stored canonical, and takes effect for
// every peer.

import type { z } from "zod";
import { WirebadgeError } from "../base/errors.ts";
import { HOUR_MS, MINUTE_MS } from "../base/units.ts";
import type { Core } from "./core.ts";
import type { Can, PolicyCheck, PolicyVersion, policySetRequestSchema } from "./http/schema.ts";
import type { PolicyVersionRow, SessionRow } from "./store/rows.ts";

export class Policies {
  readonly #core: Core;

  constructor(core: Core) {
    this.#core = core;
  }

  /** Version 0: nobody reaches anything. */
  static emptyVersion(nowMs: number): PolicyVersionRow {
    return { version: 0, text: "{}\n", canonical: "{}", author: "coordinator", reason: "", diff: "", atMs: nowMs };
  }

  leaseMs(session: SessionRow): number {
    return session.identity.startsWith("agent:") ? 5 * MINUTE_MS : 12 * HOUR_MS;
  }

  longestLeaseMs(): number {
    return 12 * HOUR_MS;
  }

  select(selector: string): SessionRow[] {
    const rows = [...this.#core.world.sessions.values()];
    return rows.filter(
      (row) => row.identity === selector || `session:${row.id}` === selector || `token:${row.token}` === selector,
    );
  }

  async get(version?: number): Promise<PolicyVersion> {
    const { world, store } = this.#core;
    const row =
      version === undefined || version === world.policy.version
        ? world.policy
        : await store.transaction((tx) => tx.policy(version));
    if (row === undefined) throw new WirebadgeError("NOT_FOUND", `there is no policy version ${version}`);
    return { ...row, policy: JSON.parse(row.canonical) as unknown };
  }

  check(_text: string): PolicyCheck {
    return { ok: false, diagnostics: [], tests: [] };
  }

  async set(_request: z.output<typeof policySetRequestSchema>, _changed: () => void): Promise<PolicyVersion> {
    return await this.get();
  }

  can(_from: string, _dest: string): Can {
    return { allowed: false, reason: "NO_GRANT", policyVersion: this.#core.world.policy.version, explanation: [] };
  }
}
