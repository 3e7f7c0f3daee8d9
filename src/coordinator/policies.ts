// The policy in force and its versions. A document comes in as text, is checked with its own tests, stored as written
// and canonical, and takes effect for every peer in one turn.
import type { z } from "zod";
import { assert } from "../base/assert.ts";
import { WirebadgeError } from "../base/errors.ts";
import { canonicalPolicy, parsePolicy, placeInPolicy } from "../policy/document.ts";
import type { PolicyIssue } from "../policy/issue.ts";
import type { Policy } from "../policy/policy.ts";
import { runPolicyTests } from "../policy/tests.ts";
import type { Core } from "./core.ts";
import { diffLines } from "./diff.ts";
import { PolicyRefusal } from "./http/problem.ts";
import type { Can, Diagnostic, PolicyCheck, PolicyVersion, policySetRequestSchema } from "./http/schema.ts";
import type { Roster } from "./roster.ts";
import { readSelector, Selection } from "./selection.ts";
import type { IdentityRow, PolicyVersionRow, SessionRow } from "./store/rows.ts";

function diagnostic({ message, hint, path, line, column }: PolicyIssue): Diagnostic {
  return { severity: "error", message, hint, line, column, ...(path !== "" && { path }) };
}

function longestLeaseMs(policy: Policy): number {
  return Math.max(...Object.values(policy.leaseMs));
}

export class Policies {
  readonly #core: Core;
  readonly #roster: Roster;
  /** Of any version so far: a lease given under an old one may still run. */
  #longestLeaseMs: number;

  constructor(core: Core, roster: Roster, longestKnownMs: number) {
    this.#core = core;
    this.#roster = roster;
    this.#longestLeaseMs = Math.max(longestKnownMs, longestLeaseMs(roster.policy));
  }

  /** Version 0: nobody reaches anything. */
  static emptyVersion(nowMs: number): PolicyVersionRow {
    return { version: 0, text: "{}\n", canonical: "{}", author: "coordinator", reason: "", diff: "", atMs: nowMs };
  }

  static parseStored(row: PolicyVersionRow): Policy {
    const parsed = parsePolicy(row.canonical, row.version);
    if (parsed.ok) return parsed.policy;
    throw new WirebadgeError("STORE_FAILED", `the stored policy version ${row.version} can't be read`, {
      hint: "it was written by a newer version, or the store is damaged",
    });
  }

  longestLeaseMs(): number {
    return this.#longestLeaseMs;
  }

  /** Throws CONFIG_INVALID for what is no selector. */
  select(selector: string): Selection {
    return new Selection(this.#core.world, this.#roster.policy, selector);
  }

  async get(version?: number): Promise<PolicyVersion> {
    const { world, store } = this.#core;
    const inForce = version === undefined || version === world.policy.version;
    const row = inForce ? world.policy : await store.transaction((tx) => tx.policy(version));
    if (row === undefined)
      throw new WirebadgeError("NOT_FOUND", `there is no policy version ${version}`, {
        hint: `versions 1 to ${world.policy.version} exist`,
      });
    return { ...row, policy: JSON.parse(row.canonical) as unknown };
  }

  check(text: string): PolicyCheck {
    const { check } = this.#read(text);
    return check;
  }

  /**
   * POLICY_INVALID, POLICY_TESTS_FAILED, POLICY_CONFLICT. `changed` runs with the new policy in force, before any other
   * change.
   */
  async set(request: z.output<typeof policySetRequestSchema>, changed: () => void): Promise<PolicyVersion> {
    const { policy, check } = this.#read(request.text);
    const { text, author, reason, expectVersion } = request;
    if (policy === undefined) throw refusalOf(check);
    const core = this.#core;
    const nowMs = core.nowMs();
    return await core.change(
      async (tx) => {
        const before = core.world.policy;
        if (expectVersion !== undefined && expectVersion !== before.version)
          throw new WirebadgeError("POLICY_CONFLICT", `version ${before.version} is in force, not ${expectVersion}`, {
            hint: "get it, put your change on top, and set it again",
          });
        const version = before.version + 1;
        const diff = diffLines(before.text, text);
        const canonical = canonicalPolicy(policy);
        const row: PolicyVersionRow = { version, text, canonical, author, reason, diff, atMs: nowMs };
        await tx.insertPolicy(row);
        await tx.raiseCounter("longest-lease-ms", longestLeaseMs(policy));
        const details = { author, reason };
        await tx.audit(nowMs, { actor: author, action: "policy.set", subject: `policy:${version}`, details });
        return row;
      },
      (row) => {
        core.world.policy = row;
        this.#longestLeaseMs = Math.max(this.#longestLeaseMs, longestLeaseMs(policy));
        const inForce = parsePolicy(row.canonical, row.version);
        assert(inForce.ok, "a policy's canonical text is a policy");
        this.#roster.setPolicy(inForce.policy);
        changed();
        return { ...row, policy: JSON.parse(row.canonical) as unknown };
      },
    );
  }

  /**
   * May it? `from` is an identity, or one of its sessions; of an identity that has none just now, a session as it would
   * be is asked. Throws CONFIG_INVALID and NOT_FOUND.
   */
  can(from: string, dest: string): Can {
    const explained = this.#roster.explain(this.#openerOf(from), dest, this.#core.nowMs());
    if (!explained.ok)
      throw new WirebadgeError("CONFIG_INVALID", explained.refusal.message, { hint: explained.refusal.hint });
    const { allowed, reason, ruleId, policyVersion, hint } = explained.explanation;
    return {
      allowed,
      reason,
      ...(ruleId !== undefined && { ruleId }),
      policyVersion,
      explanation: hint === undefined ? [] : [hint],
    };
  }

  #openerOf(from: string): SessionRow | IdentityRow {
    const { world } = this.#core;
    const selector = readSelector(from);
    if (selector.type !== "session" && selector.type !== "identity")
      throw new WirebadgeError("CONFIG_INVALID", `${from} names many`, { hint: "give one identity or session:ID" });
    const row =
      selector.type === "session"
        ? world.sessions.get(selector.id)
        : ([...world.sessions.values()].find(({ identity }) => identity === selector.name) ??
          world.identities.get(selector.name));
    if (row === undefined || ("removedMs" in row && row.removedMs !== undefined))
      throw new WirebadgeError("NOT_FOUND", `there is no ${from}`, { hint: "see `wirebadge identity list`" });
    return row;
  }

  #read(text: string): { readonly policy: Policy | undefined; readonly check: PolicyCheck } {
    const parsed = parsePolicy(text, this.#core.world.policy.version + 1);
    if (!parsed.ok)
      return { policy: undefined, check: { ok: false, diagnostics: parsed.issues.map(diagnostic), tests: [] } };
    const { policy } = parsed;
    const { identities } = this.#roster.policyWorld();
    const tests = runPolicyTests(policy, identities, this.#core.nowMs()).map((result) => ({ ...result }));
    const failed = tests.filter(({ passed }) => !passed);
    const diagnostics = failed.map(
      ({ index, from, to, expect, got, reason }): Diagnostic => ({
        severity: "error",
        path: `tests[${index}]`,
        ...placeInPolicy(text, ["tests", index]),
        message: `${from} to ${to}: expected ${expect}, got ${got}: ${reason}`,
        hint: "mend the policy, or the test",
      }),
    );
    return { policy: failed.length === 0 ? policy : undefined, check: { ok: failed.length === 0, diagnostics, tests } };
  }
}

function refusalOf(check: PolicyCheck): PolicyRefusal {
  const failed = check.tests.filter(({ passed }) => !passed);
  const first = check.diagnostics[0];
  const where = first?.line === undefined ? "" : `${first.line}:${first.column}: `;
  if (failed.length === 0)
    return new PolicyRefusal("POLICY_INVALID", `${where}${first?.message}`, first?.hint ?? "", check.diagnostics);
  const message = `${failed.length} of the policy's own tests failed`;
  return new PolicyRefusal("POLICY_TESTS_FAILED", message, "mend the policy, or the test", check.diagnostics);
}
