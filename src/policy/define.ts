// For policies written as TypeScript: the editor checks the shape, the CLI evaluates the file and sends canonical JSON.
import type { PolicyDocument } from "./schema.ts";

/**
 * @example
 * export default definePolicy({ grants: [{ from: "agent:coder", to: "service:staging-db" }] });
 */
export function definePolicy(document: PolicyDocument): PolicyDocument {
  return document;
}
