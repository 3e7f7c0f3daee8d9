// Joining and leaving, and what a network tells of itself: a real coordinator, gateway and session, in this process.
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join as joinPath } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { join } from "../../src/sdk/join.ts";
import { listen } from "../peer/world.ts";
import { Scene } from "./scene.ts";

const POLICY = {
  services: {
    staging: { at: "staging.internal tcp:80", via: ["node:gw"] },
    production: { at: "production.internal tcp:80", via: ["node:gw"], discoverable: true },
  },
  grants: [{ id: "coder-reads-staging", from: "agent:coder", to: "service:staging" }],
};

describe("join", () => {
  let scene: Scene;
  let service: Awaited<ReturnType<typeof listen>>;

  beforeAll(async () => {
    service = await listen((socket) => socket.pipe(socket));
    scene = await Scene.start(POLICY);
    await scene.gateway("node:gw", {
      serves: [`staging=127.0.0.1:${service.port}`, `production=127.0.0.1:${service.port}`],
    });
  });
  afterAll(async () => {
    await scene.end();
    await service.close();
  });

  test("with a token alone a process is a session of its own, which ends with close()", async () => {
    const token = await scene.token("agent:coder", { uses: 2 });
    const net = await join({ token });
    expect(net.identity).toBe("agent:coder");
    expect(net.addresses[0]).toMatch(/^fd/);
    const status = await net.status();
    expect(status).toMatchObject({ identity: "agent:coder", session: net.session, entryPoints: [] });
    expect(status.coordinator?.connected).toBe(true);
    {
      await using second = await join({ token });
      expect(second.session).not.toBe(net.session);
    }
    await net.close();
    await net.close();
    const [left] = await once(net.connect({ host: "staging", port: 80 }), "error");
    expect(left).toMatchObject({ code: "PEER_NOT_RUNNING" });
    expect(() => net.listen(80)).toThrow(/was left/);
    const actions = await scene.network.auditActions();
    expect(actions.filter((action) => action === "session.leave").length, String(actions)).toBeGreaterThanOrEqual(2);
    await expect(join({ token })).rejects.toMatchObject({
      code: "TOKEN_SPENT",
      hint: expect.stringContaining("state"),
    });
  });

  test("with a state folder a restart is the same session, without a token", async () => {
    const state = joinPath(scene.folder, "kept");
    const first = await join({ token: await scene.token("agent:coder"), state });
    await expect(join({ state })).rejects.toMatchObject({ code: "STATE_LOCKED" });
    await first.close();
    expect(existsSync(joinPath(state, "state.json"))).toBe(true);
    await using again = await join({ state });
    expect(again.session).toBe(first.session);
  });

  test("can() and whois() are answered as by the command line", async () => {
    await using net = await scene.join("agent:coder");
    expect(net.can("service:staging")).toMatchObject({ allowed: true, reason: "ALLOWED_BY_RULE" });
    expect(net.can("service:production")).toMatchObject({ allowed: false, hint: expect.stringContaining("grant") });
    expect(() => net.can("staging production")).toThrow(expect.objectContaining({ code: "USAGE" }));
    expect(net.whois(net.addresses[0]!)).toMatchObject({ identity: "agent:coder", session: net.session });
    expect(net.whois("192.0.2.1:80")).toBeUndefined();
  });

  test("a denial and a change of policy are events", async () => {
    await using net = await scene.join("agent:coder");
    const denied = once(net, "denial");
    net.connect({ host: "production", port: 80 }).on("error", () => undefined);
    const [denial] = await denied;
    expect(denial).toMatchObject({ reason: "NO_GRANT", destination: "production" });
    expect(net.denials()).toContainEqual(denial);
    const changed = once(net, "change");
    await scene.network.setPolicy({
      ...POLICY,
      grants: [...POLICY.grants, { from: "agent:x", to: "service:staging" }],
    });
    expect((await changed)[0].policyVersion).toBeGreaterThan(1);
  });

  test("a coordinator that goes and comes back is told, and the network lives on", async () => {
    await using net = await scene.join("agent:coder");
    const gone = once(net, "disconnected");
    await scene.network.running.stop();
    await gone;
    expect(net.can("service:staging").allowed).toBe(true);
    const back = once(net, "connected");
    await scene.network.startAgain();
    await back;
  });

  test("a revocation ends its sockets and the network, with the reason", async () => {
    const net = await scene.join("agent:coder");
    const socket = net.connect({ host: "staging", port: 80 });
    await once(socket, "connect");
    const [revoked, closed, ended] = [once(net, "revoked"), once(net, "close"), once(socket, "close")];
    socket.on("error", () => undefined);
    await scene.network.revoke(`session:${net.session}`);
    expect((await revoked)[0]).toMatchObject({ code: "SESSION_REVOKED" });
    expect((await closed)[0]).toMatchObject({ code: "SESSION_REVOKED" });
    await ended;
    expect(net.isClosed).toBe(true);
  });

  test("a join that can't be says why: a bad token, no token, nobody there, given up", async () => {
    await expect(join({ token: "wb_join_x" })).rejects.toMatchObject({ code: "TOKEN_INVALID" });
    await expect(join({})).rejects.toMatchObject({ code: "USAGE", hint: expect.stringContaining("token create") });
    await expect(join({ token: "x", url: "ftp://x" })).rejects.toMatchObject({ code: "USAGE" });
    const token = await scene.token("agent:coder");
    const nowhere = { token, url: "http://127.0.0.1:9" };
    await expect(join({ ...nowhere, timeoutMs: 300 })).rejects.toMatchObject({ code: "COORDINATOR_UNREACHABLE" });
    const controller = new AbortController();
    const joining = join({ ...nowhere, signal: controller.signal });
    controller.abort(new Error("changed my mind"));
    await expect(joining).rejects.toThrow("changed my mind");
  });

  test("url names another way to the same coordinator", async () => {
    const url = new URL(scene.network.running.url);
    await using net = await scene.join("agent:coder", { url: `http://localhost:${url.port}` });
    expect((await net.status()).coordinator?.url).toContain("localhost");
  });
});
