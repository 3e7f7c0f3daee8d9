// Tokens and policies that are wrong, given on the command line as users do: each error says what is wrong, where, and
// how to mend it, and leaves everything as it was.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { formatJoinToken, parseJoinToken } from "../../src/control/token.ts";
import { type CommandOutcome, TestNetwork } from "./network.ts";

let network: TestNetwork;
let other: TestNetwork;
let folders = 0;

beforeAll(async () => {
  [network, other] = await Promise.all([TestNetwork.start(), TestNetwork.start()]);
}, 120_000);

afterAll(async () => {
  await Promise.all([network?.close(), other?.close()]);
});

/** `up` with that token, in a state folder of its own unless given. */
function up(token: string, state = join(network.folder, `state-${folders++}`)): Promise<CommandOutcome> {
  return network.command(["up", "--state", state, "--token-file", "-"], { stdin: token });
}

function expectError(outcome: CommandOutcome, code: string, what: RegExp, mend: RegExp): void {
  expect(outcome, code).toMatchObject({ code: 2, stdout: "" });
  expect(outcome.stderr).toMatch(new RegExp(`^error ${code}: .*${what.source}`, "m"));
  expect(outcome.stderr).toMatch(new RegExp(`^ *hint: .*${mend.source}`, "m"));
}

test("a spent token, an expired one and a revoked one each say so, and which command makes another", async () => {
  const mend = /wirebadge token create/;
  const expired = await network.token("agent:late", ["--expires", "1s"]);
  const spent = await network.token("agent:once");
  const first = network.start("agent:once", process.execPath, upWords("first"), { stdin: spent });
  await first.event("ready line", (value) => value["event"] === "ready" || undefined);
  expectError(await up(spent), "TOKEN_SPENT", /used up/, mend);
  await first.end();

  const created = await network.admin(["token", "create", "--as", "agent:gone"]);
  await network.admin(["token", "revoke", String(created["id"])]);
  expectError(await up(String(created["token"])), "TOKEN_REVOKED", /revoked/, mend);

  await delay(1_000);
  expectError(await up(expired), "TOKEN_EXPIRED", /expired/, mend);
  const { sessions } = await network.admin(["session", "list", "--all"]);
  expect((sessions as { identity: string }[]).map(({ identity }) => identity)).toEqual(["agent:once"]);
});

const upWords = (state: string): string[] => [
  join(import.meta.dirname, "../../bin/wirebadge"),
  ...["up", "--json", "--token-file", "-", "--state", join(network.folder, state)],
];

test("a mistyped, cut-off, foreign or missing token is refused before anything is asked of anybody", async () => {
  const token = await network.token("agent:typo");
  const swapped = `${token.slice(0, 40)}${token[41]}${token[40]}${token.slice(42)}`;
  const typo = swapped === token ? `${token.slice(0, 40)}--${token.slice(42)}` : swapped;
  const cases: readonly (readonly [string, RegExp, RegExp])[] = [
    [typo, /mistyped: its checksum/, /copy it again/],
    [token.slice(0, 60), /cut off/, /copy the whole line/],
    ["wb_admin_aaaa_bbbb_00000000", /another kind/, /token create/],
    ["hello", /not a Wirebadge token/, /begins with wb_join_/],
    ["", /token/, /wirebadge token create|--token-file/],
  ];
  for (const [text, what, mend] of cases) {
    const state = join(network.folder, `state-${folders++}`);
    const outcome = await up(text, state);
    expectError(outcome, "TOKEN_INVALID", what, mend);
    if (text.length > 10) expect(outcome.stderr).not.toContain(text.slice(8));
    expect(existsSync(join(state, "state.json"))).toBe(false);
  }
  const argued = await network.command(["up", token]);
  expectError(argued, "USAGE", /a token stands on the command line/, /--token-file/);
  expect(argued.stderr).not.toContain(token);
});

test("a token from another network: refused for the state folder of this one, and by this coordinator", async () => {
  const state = join(network.folder, "member");
  const member = network.start("member", process.execPath, upWords("member"), {
    stdin: await network.token("agent:member"),
  });
  await member.event("ready line", (value) => value["event"] === "ready" || undefined);
  await member.end();
  const foreign = await other.token("agent:member");
  expectError(
    await up(foreign, state),
    "TOKEN_OTHER_NETWORK",
    /session of another network/,
    /another folder with --state/,
  );

  // As if this coordinator's folder had been made anew under the same key.
  const own = parseJoinToken(await network.token("agent:x"));
  const unknown = formatJoinToken({ ...parseJoinToken(foreign), url: own.url, coordinatorKey: own.coordinatorKey });
  expectError(await up(unknown), "TOKEN_OTHER_NETWORK", /doesn't know that token/, /another network.*new one/);
  const secret = formatJoinToken({ ...own, secret: parseJoinToken(foreign).secret });
  expectError(await up(secret), "TOKEN_INVALID", /secret is wrong/, /token create/);

  // Another coordinator at the address that the token names: its key is not the pinned one.
  const moved = formatJoinToken({ ...parseJoinToken(foreign), url: own.url });
  expectError(await up(moved), "COORDINATOR_UNTRUSTED", /./, /made anew: then ask for a new token/);
});

const GOOD = `{
  // who works on what
  "services": { "staging": { "at": "10.0.0.5 tcp:80", "via": ["node:gw"] } },
  "grants": [{ "from": "agent:coder", "to": "service:staging" }],
}`;

/** `policy set -` or `policy check -`, as text. */
function policy(verb: "set" | "check", text: string): Promise<CommandOutcome> {
  const words = ["policy", verb, "-", "--url", network.adminUrl, "--data", network.dataFolder];
  return network.command(words, { stdin: text });
}

const inForce = async (): Promise<unknown> => {
  const { version, text } = await network.admin(["policy", "get"]);
  return { version, text };
};

test("a policy with a mistake: refused with line, column and hint, and the old one stays in force", async () => {
  expect((await policy("set", GOOD)).code).toBe(0);
  const before = await inForce();
  expect(before).toMatchObject({ text: GOOD });
  const mistakes: readonly (readonly [string, RegExp, RegExp])[] = [
    ['{\n  "grants": [{]\n}', /^-:2:\d+ error: /m, /hint: /],
    ['{\n  "grans": []\n}', /^-:2:3 error: .*grans/m, /hint: .*grants/],
    ['{ "grants": [\n{ "from": "agnt:coder", "to": "node:gw tcp:1" }] }', /^-:2:\d+ error: .*agnt/m, /hint: .*agent/],
    ['{ "grants": [\n{ "from": "agent:coder", "to": "node:gw" }] }', /^-:2:\d+ error: .*node:gw/m, /hint: .*tcp/],
    ['{ "grants": [\n{ "from": "agent:coder", "to": "service:stagin" }] }', /^-:2:\d+ error: .*stagin/m, /hint: /],
    ['{ "grants": [\n{ "from": "agent:a", "to": "10.0.0.300 tcp:1" }] }', /^-:2:\d+ error: .*10\.0\.0\.300/m, /hint: /],
  ];
  for (const [text, where, mend] of mistakes) {
    for (const verb of ["set", "check"] as const) {
      const { code, stdout, stderr } = await policy(verb, text);
      expect([verb, code, text]).toEqual([verb, 2, text]);
      expect(`${stdout}\n${stderr}`).toMatch(where);
      expect(`${stdout}\n${stderr}`).toMatch(mend);
    }
  }
  expect(await inForce()).toEqual(before);
});

test("a policy whose own tests fail is refused, and the old one stays in force", async () => {
  const before = await inForce();
  const failing = GOOD.replace(
    /\}$/,
    `  "tests": [
    { "from": "agent:coder", "to": "service:staging", "expect": "allow" },
    { "from": "agent:coder", "to": "service:staging", "expect": "deny" }] }`,
  );
  const { code, stderr } = await policy("set", failing);
  expect(code).toBe(2);
  expect(stderr).toMatch(/^error POLICY_TESTS_FAILED: /m);
  expect(stderr).toMatch(/^-:\d+:\d+ error: tests\[1\]: agent:coder to service:staging: expected deny/m);
  expect(await inForce()).toEqual(before);
  const checked = await policy("check", failing);
  expect(checked.code).toBe(2);
  expect(checked.stdout).toMatch(/^passed: agent:coder to service:staging is allowed/m);
  expect(checked.stdout).toMatch(/^FAILED: agent:coder to service:staging should be denied/m);
  expect((await policy("set", failing.replace('"deny"', '"allow"'))).code).toBe(0);
  expect(await inForce()).not.toEqual(before);
});
