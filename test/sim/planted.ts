// A bug for `npm run sim -- --with test/sim/planted.ts`: the source's filter lets everything out.
import type { Station } from "../../src/sim/station.ts";

export function sabotage({ engine: { filter } }: Station): void {
  filter.judgeOutbound = () => ({ allowed: true, reason: "ALLOWED_BY_RULE", ruleId: "planted" });
}
