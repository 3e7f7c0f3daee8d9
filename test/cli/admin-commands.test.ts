import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { WirebadgeError } from "../../src/base/errors.ts";
import { AdminClient } from "../../src/cli/admin-client.ts";
import { fakeRuntime, lastJson, run } from "./command-line.ts";

const NOW_MS = 1_700_000_000_000;
const env = (): NodeJS.ProcessEnv => ({ WIREBADGE_ADMIN_TOKEN: "wb_admin_test" });

const created = {
  id: "t_0123456789abcdef",
  as: "agent:coder",
  tags: ["ci"],
  mayRoute: [],
  uses: 1,
  usesLeft: 1,
  createdMs: NOW_MS,
  expiresMs: NOW_MS + 3_600_000,
  state: "active",
  token: "wb_join_AAAAAAAAAAAAAAAA_00000000",
};

const folders: string[] = [];
function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "wirebadge-cli-"));
  folders.push(path);
  return path;
}
const servers: Server[] = [];
afterEach(() => {
  for (const path of folders.splice(0)) rmSync(path, { recursive: true });
  for (const server of servers.splice(0)) server.close();
});

describe("token create", () => {
  const words = [
    "token",
    "create",
    "--as",
    "agent:coder",
    "--sponsor",
    "user:ana@example.com",
    "--tag",
    "ci",
    "--tag",
    "x",
  ];

  it("sends what was asked for, and prints the token alone on standard output", async () => {
    const runtime = fakeRuntime({ "POST /v1/tokens": created });
    const outcome = await run([...words, "--uses", "3", "--expires", "10m", "--may-route", "10.0.0.0/8"], {
      runtime,
      env: env(),
      nowMs: NOW_MS,
    });
    expect(runtime.calls[0]).toMatchObject({
      url: "http://127.0.0.1:7471",
      token: "wb_admin_test",
      body: {
        as: "agent:coder",
        sponsor: "user:ana@example.com",
        tags: ["ci", "x"],
        uses: 3,
        expiresInMs: 600_000,
        mayRoute: ["10.0.0.0/8"],
      },
    });
    expect(outcome.stdout).toBe(`${created.token}\n`);
    expect(outcome.stderr).toBe("token t_0123456789abcdef for agent:coder: one use, expires in 1h\n");
    expect(outcome.code).toBe(0);
  });

  it("writes the token into a new file that only its owner can read", async () => {
    const file = join(folder(), "coder.token");
    const runtime = fakeRuntime({ "POST /v1/tokens": created });
    const outcome = await run([...words, "--out", file, "--json"], { runtime, env: env() });
    expect(readFileSync(file, "utf8")).toBe(`${created.token}\n`);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(outcome.stdout).not.toContain(created.token);
    expect(lastJson(outcome)).toMatchObject({ id: created.id, file });
  });

  it("makes no token when the file can't be made, and leaves no file when there is no token", async () => {
    const file = join(folder(), "coder.token");
    const refusing = fakeRuntime({
      "POST /v1/tokens": () => {
        throw new WirebadgeError("FORBIDDEN", "no");
      },
    });
    expect((await run([...words, "--out", file], { runtime: refusing, env: env() })).stderr).toBe(
      "error FORBIDDEN: no\n",
    );
    expect(() => statSync(file)).toThrow();
    writeFileSync(file, "mine");
    const runtime = fakeRuntime({ "POST /v1/tokens": created });
    const outcome = await run([...words, "--out", file], { runtime, env: env() });
    expect(outcome.stderr).toContain("EEXIST");
    expect(runtime.calls).toEqual([]);
    expect(readFileSync(file, "utf8")).toBe("mine");
  });
});

describe("the admin token", () => {
  it("is taken out of the environment once read", async () => {
    const environment = env();
    await run(["token", "list"], { runtime: fakeRuntime({ "GET /v1/tokens": { tokens: [] } }), env: environment });
    expect(environment).toEqual({});
  });

  it("comes from the data folder when the environment has none", async () => {
    const data = folder();
    writeFileSync(join(data, "admin.token"), "wb_admin_of_the_file\n");
    const runtime = fakeRuntime({ "GET /v1/tokens": { tokens: [] } });
    expect((await run(["token", "list", "--data", data], { runtime })).stdout).toBe("no tokens\n");
    expect(runtime.calls[0]?.token).toBe("wb_admin_of_the_file");
  });

  it("is missed with the name of the file it was looked for in", async () => {
    const data = folder();
    const { code, stderr } = await run(["token", "list", "--data", data]);
    expect(code).toBe(2);
    expect(stderr).toContain(`error UNAUTHORIZED: no admin token: ${join(data, "admin.token")}`);
    expect(stderr).toContain("hint: ");
  });

  it("is not sent over a network in clear text, nor to where a redirect points", async () => {
    expect(() => new AdminClient({ url: "http://10.0.0.1:7471", token: "x" })).toThrow(/clear text/);
    const seen: string[] = [];
    const stranger = await serve((request, response) => {
      seen.push(request.headers.authorization ?? "");
      response.end("{}");
    });
    const url = await serve((_, response) => {
      response.writeHead(302, { location: stranger }).end();
    });
    await expect(new AdminClient({ url, token: "x" }).call("GET", "/v1/tokens", z.object({}))).rejects.toThrow();
    expect(seen).toEqual([]);
  });
});

function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  servers.push(server);
  return new Promise((resolve) =>
    server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)),
  );
}

describe("the admin client", () => {
  const answering = async (status: number, body: string): Promise<AdminClient> => {
    const url = await serve((_, response) => {
      response.writeHead(status).end(body);
    });
    return new AdminClient({ url, token: "wb_admin_x" });
  };
  const ask = (client: AdminClient): Promise<unknown> => client.call("GET", "/v1/x", z.object({ a: z.number() }));

  it("sends the token as a bearer and reads the answer", async () => {
    let authorization: string | undefined;
    const url = await serve((request, response) => {
      authorization = request.headers.authorization;
      response.end('{"a":1,"more":2}');
    });
    expect(await ask(new AdminClient({ url, token: "wb_admin_x" }))).toEqual({ a: 1 });
    expect(authorization).toBe("Bearer wb_admin_x");
  });

  it("turns a problem into the error of that code, with its hint", async () => {
    const problem = {
      type: "urn:x",
      title: "t",
      status: 409,
      code: "POLICY_CONFLICT",
      detail: "it is at 8",
      hint: "get it",
    };
    await expect(ask(await answering(409, JSON.stringify(problem)))).rejects.toMatchObject({
      code: "POLICY_CONFLICT",
      message: "it is at 8",
      hint: "get it",
      exitCode: 2,
    });
  });

  it.each([
    [200, '{"a":"no number"}', "PROTOCOL_VERSION"],
    [200, "<html>", "PROTOCOL_VERSION"],
    [404, "not found", "PROTOCOL_VERSION"],
    [500, '{"type":"","title":"","status":500,"code":"NEW_CODE","detail":"x"}', "STORE_FAILED"],
  ])("names an answer that it can't use: %i %s", async (status, body, code) => {
    await expect(ask(await answering(status, body))).rejects.toMatchObject({ code });
  });

  it("says that nobody answers, with the hint how to find out", async () => {
    const url = await serve(() => undefined);
    servers.pop()?.close();
    await expect(ask(new AdminClient({ url, token: "x" }))).rejects.toMatchObject({ code: "COORDINATOR_UNREACHABLE" });
  });
});

describe("policy check and set", () => {
  const policy = {
    version: 4,
    text: "{}",
    policy: {},
    author: "a",
    reason: "",
    atMs: NOW_MS,
    diff: "--- a\n+++ b\n-x\n+y\n z",
  };

  it("sends a JSONC file as it stands, comments kept", async () => {
    const file = join(folder(), "policy.jsonc");
    writeFileSync(file, '// why\n{ "grants": [], }\n');
    const runtime = fakeRuntime({ "PUT /v1/policy": policy });
    const outcome = await run(["policy", "set", file, "--reason", "r", "--expect", "3"], { runtime, env: env() });
    expect(runtime.calls[0]?.body).toMatchObject({
      text: '// why\n{ "grants": [], }\n',
      reason: "r",
      expectVersion: 3,
    });
    expect(outcome.stdout).toBe("policy version 4 is in force (2 changed lines)\n");
  });

  it("reads standard input for -", async () => {
    const runtime = fakeRuntime({ "PUT /v1/policy": policy });
    await run(["policy", "set", "-", "--json"], { runtime, env: env(), stdin: "{}" });
    expect(runtime.calls[0]?.body).toMatchObject({ text: "{}" });
  });

  it("evaluates a TypeScript module here and sends plain JSON", async () => {
    const file = join(folder(), "policy.ts");
    writeFileSync(
      file,
      'const who: string = "agent:coder";\nexport default { grants: [{ from: who, to: "service:x" }] };\n',
    );
    const runtime = fakeRuntime({ "PUT /v1/policy": policy });
    await run(["policy", "set", file], { runtime, env: env() });
    const body = runtime.calls[0]?.body as { text: string };
    expect(JSON.parse(body.text)).toEqual({ grants: [{ from: "agent:coder", to: "service:x" }] });
  });

  it.each([
    ["export const a = 1;", "no default export"],
    ["export default [];", "no default export"],
    ["export default { grants: [{ from: () => 1 }] };", "grants.0.from is a function"],
    ["export default { leases: new Map() };", "leases is a Map"],
    ["export default { a: { b: Number.NaN } };", "a.b is NaN"],
    ["const a = {}; a.a = a; export default a;", "a is part of itself"],
    ["throw new Error('no\\u001b[2Jway');", "no\\u{1b}[2Jway"],
    ["export default {", "can't be evaluated"],
  ])("refuses a module that is no policy: %s", async (source, part) => {
    const file = join(folder(), "policy.mjs");
    writeFileSync(file, source);
    const { code, stderr } = await run(["policy", "check", file], { env: env() });
    expect(code).toBe(2);
    expect(stderr).toMatch(/^error POLICY_INVALID: /);
    expect(stderr).toContain(part);
  });

  it("says what is wrong where, and what the document's own tests gave, with exit code 2", async () => {
    const file = join(folder(), "policy.jsonc");
    writeFileSync(file, "{}");
    const check = {
      ok: false,
      diagnostics: [
        {
          severity: "error",
          message: "unknown\u001b selector",
          line: 3,
          column: 7,
          path: "grants[0].to",
          hint: "service:NAME",
        },
      ],
      tests: [
        { index: 0, from: "agent:a", to: "service:b", expect: "deny", got: "allow", passed: false, reason: "rule x" },
      ],
    };
    const runtime = fakeRuntime({ "POST /v1/policy/check": check });
    const text = await run(["policy", "check", file], { runtime, env: env() });
    expect(text.code).toBe(2);
    expect(text.stdout).toBe(
      `${file}:3:7 error: grants[0].to: unknown\\u{1b} selector\n  hint: service:NAME\n` +
        "FAILED: agent:a to service:b should be denied, but is not: rule x\nnot accepted\n",
    );
    const json = await run(["policy", "check", file, "--json"], { runtime, env: env() });
    expect([json.code, lastJson(json)]).toEqual([2, check]);
  });

  it("refuses a file larger than any policy", async () => {
    const file = join(folder(), "policy.jsonc");
    writeFileSync(file, " ".repeat(1024 * 1024 + 1));
    expect((await run(["policy", "set", file], { env: env() })).stderr).toContain("larger than");
  });
});

describe("revoke, identity and session", () => {
  const revocation = { selector: "agent:coder", sessions: ["s_1"], tokens: [], toldPeers: 3, atMs: NOW_MS };

  it("revokes by selector and says what that ended", async () => {
    const runtime = fakeRuntime({ "POST /v1/revocations": revocation });
    const outcome = await run(["revoke", "agent:coder", "--reason", "r"], { runtime, env: env() });
    expect(runtime.calls[0]?.body).toEqual({ selector: "agent:coder", reason: "r" });
    expect(outcome.stdout).toBe("revoked agent:coder: 1 session ended, 0 tokens void, 3 peers told\n");
  });

  it("escapes names in paths", async () => {
    const runtime = fakeRuntime({ "DELETE /v1/identities/user%3Aana%2Fx%40example.com": revocation });
    expect((await run(["identity", "remove", "user:ana/x@example.com"], { runtime, env: env() })).code).toBe(0);
  });

  it("shows what a gateway offered in vain, and escapes what peers chose themselves", async () => {
    const session = {
      id: "s_1",
      identity: "node:gw",
      tags: [],
      token: "t_1",
      addresses: ["fd00::1"],
      publicKey: "k",
      state: "active",
      connected: true,
      enrolledMs: NOW_MS,
      lastSeenMs: NOW_MS,
      leaseEndMs: NOW_MS + 90_000,
      offers: { routes: ["::/0"], serves: [] },
      refusedOffers: [{ offer: "::/0\n", reason: "no via names it" }],
      missingOffers: ["service:x"],
      endpoints: [],
      software: "x",
    };
    const runtime = fakeRuntime({ "GET /v1/sessions": { sessions: [session] } });
    const { stdout } = await run(["session", "list", "--all"], { runtime, env: env(), nowMs: NOW_MS });
    expect(runtime.calls[0]?.path).toBe("/v1/sessions?all=true");
    expect(stdout).toContain("node:gw: offer ::/0\\u{a} refused: no via names it\n");
    expect(stdout).toContain("node:gw: the policy lists it for service:x, but it doesn't offer that itself\n");
    expect(stdout).toMatch(/s_1 +node:gw +- +connected +in 1m 30s +fd00::1/);
  });
});

describe("can FROM DEST", () => {
  it.each([
    [true, 0, "allowed: agent:a to service:b (ALLOWED_BY_RULE by r, policy version 2)\n  because\n"],
    [false, 1, "denied: agent:a to service:b (NO_GRANT, policy version 2)\n  because\n"],
  ])("answers with its exit code: allowed %s is %i", async (allowed, code, text) => {
    const answer = allowed
      ? { allowed, reason: "ALLOWED_BY_RULE", ruleId: "r", policyVersion: 2, explanation: ["because"] }
      : { allowed, reason: "NO_GRANT", policyVersion: 2, explanation: ["because"] };
    const runtime = fakeRuntime({ "GET /v1/can": answer });
    const outcome = await run(["can", "agent:a", "service:b"], { runtime, env: env() });
    expect([outcome.code, outcome.stdout]).toEqual([code, text]);
    expect(runtime.calls[0]?.path).toBe("/v1/can?from=agent%3Aa&dest=service%3Ab");
    const json = await run(["can", "agent:a", "service:b", "--json"], { runtime, env: env() });
    expect([json.code, lastJson(json)]).toEqual([code, answer]);
  });

  it("is 2 for an error", async () => {
    const runtime = fakeRuntime({
      "GET /v1/can": () => {
        throw new WirebadgeError("NOT_FOUND", "no such identity");
      },
    });
    expect((await run(["can", "agent:a", "service:b"], { runtime, env: env() })).code).toBe(2);
  });
});
