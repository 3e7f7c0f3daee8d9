// What is wrong with a policy document: a stable code, what, where and how to mend it.
import type { JSONPath } from "jsonc-parser";

export type PolicyIssueCode =
  | "SYNTAX"
  | "TOO_LARGE"
  | "TOO_DEEP"
  | "TOO_MANY"
  | "TOO_LONG"
  | "DUPLICATE_KEY"
  | "UNKNOWN_KEY"
  | "MISSING_KEY"
  | "WRONG_TYPE"
  | "WRONG_VALUE"
  | "BAD_NAME"
  | "BAD_SELECTOR"
  | "BAD_DESTINATION"
  | "BAD_TIME"
  | "BAD_DURATION"
  | "UNKNOWN_GROUP"
  | "UNKNOWN_SERVICE"
  | "GROUP_IN_GROUP"
  | "VIA_NOT_NODE"
  | "SERVICE_OVERLAP"
  | "DUPLICATE_ROUTE"
  | "DUPLICATE_ID"
  | "TEST_NOT_ONE_THING";

/** Without its place in the text. */
export interface PolicyFault {
  readonly code: PolicyIssueCode;
  readonly path: JSONPath;
  readonly message: string;
  readonly hint: string;
  /** The mistake is in the key at the path's end, not in its value. */
  readonly atKey?: boolean;
}

export interface PolicyIssue {
  readonly code: PolicyIssueCode;
  readonly message: string;
  readonly hint: string;
  /** `grants[1].to` */
  readonly path: string;
  /** From 1, in UTF-16 units as editors count. */
  readonly line: number;
  readonly column: number;
}
