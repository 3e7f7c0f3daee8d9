// Our WireGuard against each other implementation, at real time, past two rekeys: who begins, with and without a
// preshared key, IPv4 and IPv6 outside, both inside, both providers. All rows run side by side, and so take as long as
// one. The short form takes each pair of settings at least once; the long form takes all rows.
import { beforeAll, describe, expect, test } from "vitest";
import { type Row, runRow, titleOf } from "../interop/interop-row.ts";
import type { Stock } from "../interop/stock-wireguard.ts";
import { needs } from "../needs.ts";
import { LONG, record } from "../proof/form.ts";

/** Role, preshared key, outside: every pair of values of two of them is there. */
const COVERING: readonly Pick<Row, "we" | "psk" | "outside">[] = [
  { we: "initiator", psk: false, outside: 4 },
  { we: "initiator", psk: true, outside: 6 },
  { we: "responder", psk: false, outside: 6 },
  { we: "responder", psk: true, outside: 4 },
];
const REST: readonly Pick<Row, "we" | "psk" | "outside">[] = [
  { we: "initiator", psk: false, outside: 6 },
  { we: "initiator", psk: true, outside: 4 },
  { we: "responder", psk: false, outside: 4 },
  { we: "responder", psk: true, outside: 6 },
];

function rowsOf(stock: Stock): Row[] {
  const settings = LONG || stock === "wireguard-go" ? [...COVERING, ...REST] : COVERING;
  return settings.map((row, id) => ({ stock, ...row, crypto: id % 2 === 0 ? "native" : "portable" }));
}

const STOCKS: readonly Stock[] = ["wireguard-go", "wireguard-go-debian", "boringtun-cli"];
const all = needs("netns", "tun", "wg", "ping", ...STOCKS);

describe.runIf(all)("no packet is lost over two rekeys", () => {
  const rows = STOCKS.flatMap(rowsOf);
  let outcomes: PromiseSettledResult<number>[] = [];

  beforeAll(async () => {
    outcomes = await Promise.allSettled(rows.map(runRow));
    const crossed = outcomes.reduce((sum, run) => sum + (run.status === "fulfilled" ? run.value : 0), 0);
    record({
      what: "rows of the interop matrix, past two rekeys",
      count: rows.length,
      figure: `${crossed} echoes, none lost`,
    });
  });

  for (const [id, row] of rows.entries()) {
    test(titleOf(row), () => {
      const outcome = outcomes[id];
      if (outcome?.status === "rejected") throw outcome.reason;
      expect(outcome?.value).toBeGreaterThan(350);
    });
  }
});
