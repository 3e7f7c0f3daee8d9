// Which identities, sessions and tokens a selector names, in the notation that policy, CLI and API share.
import { WirebadgeError } from "../base/errors.ts";
import type { Policy } from "../policy/policy.ts";
import { formatSelector, parseSelector, type Selector } from "../policy/selector.ts";
import type { IdentityRow, SessionRow, TokenRow } from "./store/rows.ts";
import type { World } from "./world.ts";

/** Throws CONFIG_INVALID with what is wrong and how to mend it. */
export function readSelector(text: string): Selector {
  const parsed = parseSelector(text);
  if (parsed.ok) return parsed.value;
  throw new WirebadgeError("CONFIG_INVALID", parsed.refusal.message, { hint: parsed.refusal.hint });
}

export class Selection {
  readonly #world: World;
  readonly #policy: Policy;
  readonly #selector: Selector;

  constructor(world: World, policy: Policy, text: string) {
    this.#world = world;
    this.#policy = policy;
    this.#selector = readSelector(text);
  }

  hasIdentity(row: IdentityRow): boolean {
    return this.#names(this.#selector, row, undefined);
  }

  /** Tokens by which sessions of that kind could come in anew. */
  hasToken(row: TokenRow): boolean {
    if (this.#selector.type === "token") return row.id === this.#selector.id;
    const identity = this.#world.identities.get(row.identity);
    return identity !== undefined && this.hasIdentity(identity);
  }

  /** Active sessions. */
  sessions(): SessionRow[] {
    return [...this.#world.sessions.values()].filter((row) => {
      const identity = this.#world.identities.get(row.identity);
      return identity !== undefined && this.#names(this.#selector, identity, row);
    });
  }

  #names(selector: Selector, identity: IdentityRow, session: SessionRow | undefined): boolean {
    switch (selector.type) {
      case "identity":
        return identity.name === selector.name;
      case "kind":
        return identity.kind === selector.kind;
      case "tag":
        return identity.tags.includes(selector.name);
      case "sponsor":
        return identity.sponsor === selector.name;
      case "session":
        return session?.id === selector.id;
      case "token":
        return session?.token === selector.id;
      case "group": {
        const members = this.#policy.groups.get(selector.name) ?? [];
        return members.some((member) => member.type !== "group" && this.#names(member, identity, session));
      }
    }
  }

  get text(): string {
    return formatSelector(this.#selector);
  }
}
