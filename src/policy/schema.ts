// The shape of a policy document; what its texts mean is checked in document.ts. The JSON Schema for editors comes from
// the same definition.
import { z } from "zod";
import {
  POLICY_GRANTS_MAX,
  POLICY_GROUPS_MAX,
  POLICY_LIST_MAX,
  POLICY_NEVERS_MAX,
  POLICY_ROUTES_MAX,
  POLICY_SERVICES_MAX,
  POLICY_TESTS_MAX,
} from "../base/limits.ts";

const text = z.string().max(512);
const list = z.array(text).max(POLICY_LIST_MAX);
const textOrList = z.union([text, list]);
const record = <V extends z.ZodType>(value: V, most: number) =>
  z.record(z.string(), value).refine((entries) => Object.keys(entries).length <= most, {
    params: { most },
    error: `more than ${most} entries`,
  });

const id = text.optional().describe("Named in verdicts and records. Without it one is made from the content.");
const from = textOrList.describe("Who opens the flow: agent:coder, kind:agent, group:platform, tag:prod …");

export const policyDocumentSchema = z.strictObject({
  $schema: z.string().optional(),
  groups: record(list, POLICY_GROUPS_MAX).optional().describe("Named sets of identities."),
  services: record(
    z.strictObject({
      at: text.describe('Where it is behind its gateways: "10.20.0.5 tcp:5432".'),
      via: list.describe("The nodes that may serve it: node:gw-1, node:* or tag:gateways."),
      tags: list.optional(),
      discoverable: z
        .boolean()
        .optional()
        .describe("Shown, with what would allow it, also to those who have no grant."),
    }),
    POLICY_SERVICES_MAX,
  ).optional(),
  routes: record(z.strictObject({ via: list }), POLICY_ROUTES_MAX)
    .optional()
    .describe("CIDR or host:PATTERN to the nodes that may carry it."),
  grants: z
    .array(
      z.strictObject({
        id,
        from,
        to: textOrList.describe("DEST[ PROTO[:PORTS]]: service:staging-db, 10.20.0.0/16 tcp:5432, node:gw-1 icmp …"),
        until: text.optional().describe("ISO 8601 with a zone: 2027-01-01T00:00:00Z."),
      }),
    )
    .max(POLICY_GRANTS_MAX)
    .optional(),
  never: z
    .array(z.strictObject({ id, from, to: textOrList }))
    .max(POLICY_NEVERS_MAX)
    .optional()
    .describe("What no grant opens."),
  leases: z
    .strictObject({ user: text.optional(), node: text.optional(), agent: text.optional() })
    .optional()
    .describe("How long a session lasts without its coordinator: 5m, 12h."),
  tests: z
    .array(z.strictObject({ from: text, to: text, expect: z.enum(["allow", "deny"]) }))
    .max(POLICY_TESTS_MAX)
    .optional()
    .describe("What must hold; a document whose tests fail is refused."),
});

/** As written. */
export type PolicyDocument = z.input<typeof policyDocumentSchema>;

/** For editors: JSON Schema, draft 2020-12. */
export function policyJsonSchema(): unknown {
  return z.toJSONSchema(policyDocumentSchema);
}
