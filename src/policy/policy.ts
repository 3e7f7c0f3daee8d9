// A policy with every text read and every name resolved: what evaluate.ts, compile.ts and explain.ts work on.
import type { Prefix } from "../base/address.ts";
import type { RouteTarget, ServicePlace, Traffic } from "./destination.ts";
import type { PolicyDocument } from "./schema.ts";
import type { IdentityKind, Selector } from "./selector.ts";

/** As Target of destination.ts, a bare name decided. */
export type PolicyTarget =
  | { readonly type: "service"; readonly name: string } // "*" is every service
  | { readonly type: "prefix"; readonly prefix: Prefix }
  | { readonly type: "host"; readonly pattern: string }
  | { readonly type: "selector"; readonly selector: Selector };

export interface PolicyDestination {
  readonly target: PolicyTarget;
  /** Undefined: as the service has it; in `never` all of it. */
  readonly traffic: Traffic | undefined;
}

export interface PolicyService {
  readonly name: string;
  readonly place: ServicePlace;
  readonly via: readonly Selector[];
  readonly tags: readonly string[];
  readonly discoverable: boolean;
}

export interface PolicyRoute {
  readonly target: RouteTarget;
  readonly via: readonly Selector[];
}

export interface PolicyGrant {
  readonly id: string;
  readonly from: readonly Selector[];
  readonly to: readonly PolicyDestination[];
  /** Unix time by the coordinator's clock. */
  readonly untilMs: number | undefined;
}

export interface PolicyNever {
  readonly id: string;
  readonly from: readonly Selector[];
  readonly to: readonly PolicyDestination[];
}

export interface PolicyTest {
  readonly index: number;
  readonly fromText: string;
  readonly toText: string;
  readonly from: Selector;
  readonly to: PolicyDestination;
  readonly expect: "allow" | "deny";
}

export interface Policy {
  /** 0 is the empty policy: nobody reaches anything. */
  readonly version: number;
  readonly document: PolicyDocument;
  readonly groups: ReadonlyMap<string, readonly Selector[]>;
  readonly services: ReadonlyMap<string, PolicyService>;
  readonly routes: readonly PolicyRoute[];
  readonly grants: readonly PolicyGrant[];
  readonly nevers: readonly PolicyNever[];
  readonly leaseMs: Readonly<Record<IdentityKind, number>>;
  readonly tests: readonly PolicyTest[];
}
