import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ADMIN_API_BODY_MAX_BYTES } from "../../src/base/limits.ts";
import { isSecretToken } from "../../src/control/token.ts";
import {
  auditSchema,
  healthSchema,
  identityListSchema,
  identityShowSchema,
  problemSchema,
  revocationSchema,
  sessionListSchema,
  tokenCreatedSchema,
  tokenListSchema,
  tokenRevokedSchema,
} from "../../src/coordinator/http/schema.ts";
import { TestNetwork } from "./network.ts";

let network: TestNetwork;
beforeAll(async () => {
  network = await TestNetwork.start();
});
afterAll(async () => {
  await network.end();
});

test("the admin token is made at first start, for its owner alone, and survives a restart", async () => {
  const before = network.adminToken;
  expect(isSecretToken("admin", before)).toBe(true);
  expect(statSync(network.running.adminTokenFile).mode & 0o777).toBe(0o600);
  expect(statSync(join(network.dataDir, "keys.json")).mode & 0o777).toBe(0o600);
  expect(statSync(join(network.dataDir, "network.db")).mode & 0o777).toBe(0o600);
  await network.running.stop();
  await network.startAgain();
  expect(network.adminToken).toBe(before);
});

test.each([
  ["no header", undefined],
  ["an empty one", "Bearer "],
  ["another scheme", "Basic YWRtaW46"],
  ["another token", "Bearer wb_admin_0000000000000000_0_00000000"],
])("%s is unauthorized on every endpoint, the document and unknown ones too", async (_what, authorization) => {
  for (const path of ["/v1/health", "/v1/tokens", "/v1/openapi.json", "/nothing"]) {
    const response = await fetch(network.running.adminUrl + path, {
      headers: authorization === undefined ? {} : { authorization },
    });
    expect(response.status).toBe(401);
    expect(response.headers.get("content-type")).toBe("application/problem+json");
    expect(problemSchema.parse(await response.json()).code).toBe("UNAUTHORIZED");
  }
});

test.each(["evil.example", "evil.example:7471", "127.0.0.1.evil.example", "[::2]"])(
  "the Host %s is refused on loopback, even with the token",
  async (host) => {
    const { default: http } = await import("node:http");
    const url = new URL(network.running.adminUrl);
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const headers = { authorization: `Bearer ${network.adminToken}`, host };
      http
        .get({ host: url.hostname, port: url.port, path: "/v1/health", headers, agent: false }, (response) => {
          response.resume();
          resolve(response.statusCode);
        })
        .on("error", reject);
    });
    expect(status).toBe(403);
  },
);

test("localhost and loopback addresses are taken as Host", async () => {
  const url = new URL(network.running.adminUrl);
  for (const host of ["localhost", "127.0.0.1"]) {
    const response = await fetch(`http://${host}:${url.port}/v1/health`, {
      headers: { authorization: `Bearer ${network.adminToken}` },
    });
    if (host === "127.0.0.1") expect(response.status).toBe(200);
    else expect([200]).toContain(response.status);
  }
});

test("a body one byte over the limit is refused by name", async () => {
  const body = (bytes: number): string => `"${"x".repeat(bytes - 2)}"`;
  const within = await network.refusal("POST", "/v1/tokens", body(ADMIN_API_BODY_MAX_BYTES));
  expect(within.code).toBe("CONFIG_INVALID");
  const chunked = await fetch(`${network.running.adminUrl}/v1/tokens`, {
    method: "POST",
    headers: { authorization: `Bearer ${network.adminToken}` },
    body: new Blob([body(10)]).stream(),
    duplex: "half",
  });
  expect(chunked.status).toBe(413);
  const over = await network.refusal("POST", "/v1/tokens", body(ADMIN_API_BODY_MAX_BYTES + 1));
  expect(over).toMatchObject({ code: "TOO_LARGE", status: 413 });
});

test.each([
  ["POST", "/v1/tokens", "{", "CONFIG_INVALID"],
  ["POST", "/v1/tokens", {}, "CONFIG_INVALID"],
  ["POST", "/v1/tokens", { as: "coder" }, "CONFIG_INVALID"],
  ["POST", "/v1/tokens", { as: "agent:Coder" }, "CONFIG_INVALID"],
  ["POST", "/v1/tokens", { as: "group:all" }, "CONFIG_INVALID"],
  ["POST", "/v1/tokens", { as: `agent:${"a".repeat(64)}` }, "CONFIG_INVALID"],
  ["POST", "/v1/tokens", { as: "agent:coder", sponsor: "node:gw" }, "CONFIG_INVALID"],
  ["POST", "/v1/tokens", { as: "user:ana@example.com", sponsor: "user:bo@example.com" }, "CONFIG_INVALID"],
  ["POST", "/v1/tokens", { as: "agent:coder", uses: 0 }, "CONFIG_INVALID"],
  ["POST", "/v1/tokens", { as: "agent:coder", expiresInMs: 1e12 }, "CONFIG_INVALID"],
  ["POST", "/v1/tokens", { as: "agent:coder", mayRoute: ["everything"] }, "CONFIG_INVALID"],
  ["POST", "/v1/tokens", { as: "agent:coder", admin: true }, "CONFIG_INVALID"],
  ["DELETE", "/v1/tokens/t_0000000000000000", undefined, "NOT_FOUND"],
  ["GET", "/v1/identities/agent:nobody", undefined, "NOT_FOUND"],
  ["DELETE", "/v1/identities/agent:nobody", undefined, "NOT_FOUND"],
  ["POST", "/v1/revocations", { selector: "agent:nobody" }, "NOT_FOUND"],
  ["POST", "/v1/revocations", { selector: "everybody" }, "CONFIG_INVALID"],
  ["POST", "/v1/revocations", { selector: "*:*" }, "CONFIG_INVALID"],
  ["GET", "/v1/audit?limit=1001", undefined, "CONFIG_INVALID"],
  ["GET", "/v1/policy?version=x", undefined, "CONFIG_INVALID"],
  ["GET", "/v2/tokens", undefined, "NOT_FOUND"],
])("%s %s with %j is refused as %s", async (method, path, body, code) => {
  const problem = await network.refusal(method, path, body);
  expect(problem.code).toBe(code);
  expect(problem.detail).not.toBe("");
});

test("tokens, identities and sessions are listed without secrets", async () => {
  const request = { as: "agent:listed", sponsor: "user:li@example.com", tags: ["b", "a"], uses: 3 };
  const created = await network.admin(tokenCreatedSchema, "POST", "/v1/tokens", request);
  const list = await (await network.request("GET", "/v1/tokens")).text();
  expect(list).toContain(created.id);
  expect(list).not.toContain(created.token.slice(-60));
  const { tokens } = tokenListSchema.parse(JSON.parse(list));
  expect(tokens.find(({ id }) => id === created.id)).toMatchObject({
    as: "agent:listed",
    sponsor: "user:li@example.com",
    tags: ["a", "b"],
    usesLeft: 3,
    state: "active",
  });
  const { identities } = await network.admin(identityListSchema, "GET", "/v1/identities");
  expect(identities.map(({ name }) => name)).toEqual(expect.arrayContaining(["agent:listed", "user:li@example.com"]));
  const again = await network.refusal("POST", "/v1/tokens", { as: "agent:listed", sponsor: "user:bo@example.com" });
  expect(again.code).toBe("IDENTITY_MISMATCH");
  const otherTag = await network.refusal("POST", "/v1/tokens", { as: "agent:listed", tags: ["prod"] });
  expect(otherTag.code).toBe("IDENTITY_MISMATCH");
});

test.each(["10.20.0.0/16", "fd00:20::/32", "host:*.internal", "service:staging"])(
  "a token may let its sessions offer %s",
  async (offer) => {
    const created = await network.admin(tokenCreatedSchema, "POST", "/v1/tokens", { as: "node:gw", mayRoute: [offer] });
    expect(created.mayRoute).toEqual([offer]);
  },
);

test("a token that is revoked again stays as it was, and the audit log says it once", async () => {
  const { id } = await network.token({ as: "agent:twice-revoked" });
  const first = await network.admin(tokenRevokedSchema, "DELETE", `/v1/tokens/${id}`);
  network.clock.aheadMs += 1_000;
  expect(await network.admin(tokenRevokedSchema, "DELETE", `/v1/tokens/${id}`)).toEqual(first);
  const { entries } = await network.admin(auditSchema, "GET", "/v1/audit?limit=1000");
  expect(entries.filter(({ subject }) => subject === `token:${id}`).map(({ action }) => action)).toEqual([
    "token.create",
    "token.revoke",
  ]);
});

test("an identity that is removed takes its sessions and tokens with it, and its name may be used anew", async () => {
  const peer = await network.join("agent:brief", { uses: 2 });
  const name = encodeURIComponent("agent:brief");
  const shown = await network.admin(identityShowSchema, "GET", `/v1/identities/${name}`);
  expect(shown.sessions.map(({ id, connected }) => [id, connected])).toEqual([[peer.session, true]]);
  const removed = await network.admin(revocationSchema, "DELETE", `/v1/identities/${name}`);
  expect(removed).toMatchObject({ sessions: [peer.session] });
  expect(removed.tokens).toHaveLength(1);
  await peer.until(() => peer.revoked, "it is told");
  const after = await network.admin(identityShowSchema, "GET", `/v1/identities/${name}`);
  expect(after.removedMs).toBeDefined();
  const anew = await network.join("agent:brief", { sponsor: "user:new@example.com" });
  expect(anew.view.self.sponsor).toBe("user:new@example.com");
});

test("everybody gets an IPv6 and an IPv4 address, and no two the same", async () => {
  const peers = [
    await network.join("node:v4"),
    await network.join("user:v4@example.com"),
    await network.join("agent:v6"),
  ];
  const addresses = peers.map(({ view }) => view.self.addresses);
  expect(addresses.map((list) => list.length)).toEqual([2, 2, 2]);
  expect(new Set(addresses.flat()).size).toBe(6);
  const { network: entry } = peers[0]!.view;
  expect(entry.ula).toMatch(/^fd[0-9a-f:]+::\/48$/);
  expect(entry.pool4).toMatch(/^10\.\d+\.0\.0\/16$/);
  expect(addresses[0]![1]!.startsWith(entry.pool4.split(".").slice(0, 2).join("."))).toBe(true);
});

test("every change has its line in a chain that verifies", async () => {
  const peer = await network.join("agent:audited");
  await network.revoke(`session:${peer.session}`);
  const { entries, verified } = await network.admin(auditSchema, "GET", "/v1/audit?limit=1000");
  expect(verified).toBe(true);
  expect(entries[0]).toMatchObject({ seq: 1, action: "network.create", previous: "0".repeat(64) });
  for (const action of ["token.create", "session.enrol", "revoke"])
    expect(entries.map((entry) => entry.action)).toContain(action);
  const [page] = (await network.admin(auditSchema, "GET", "/v1/audit?after=1&limit=1")).entries;
  expect(page!.seq).toBe(2);
});

test("health says how it is, and the OpenAPI document describes every endpoint", async () => {
  const health = await network.admin(healthSchema, "GET", "/v1/health");
  expect(health).toMatchObject({ status: "ok", epoch: 1, url: network.running.url });
  const document = (await (await network.request("GET", "/v1/openapi.json")).json()) as { paths: object };
  expect(Object.keys(document.paths)).toHaveLength(14);
});

test("no secret stands in a log line, in the store or in the records", async () => {
  const created = await network.admin(tokenCreatedSchema, "POST", "/v1/tokens", { as: "agent:canary" });
  const peer = await network.join("agent:canary-2");
  await network.running.stop();
  const secrets = [created.token.slice(60, 120), network.adminToken, Buffer.from(peer.options.enrolment!.secret)];
  const base64 = Buffer.from(peer.options.enrolment!.secret).toString("base64").slice(0, 43);
  for (const file of ["network.db", "network.db-wal", "records.db", "keys.json"]) {
    let content: Buffer;
    try {
      content = readFileSync(join(network.dataDir, file));
    } catch {
      continue; // the log file is merged into the database at a clean end
    }
    for (const secret of [...secrets, base64]) expect(content.includes(secret), file).toBe(false);
  }
  const log = network.log.lines.join("\n");
  for (const secret of [created.token.slice(60, 120), network.adminToken, base64]) expect(log).not.toContain(secret);
  await network.startAgain();
  expect((await network.admin(sessionListSchema, "GET", "/v1/sessions")).sessions.length).toBeGreaterThan(0);
});
