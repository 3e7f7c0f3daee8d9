import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { WirebadgeError } from "../../src/base/errors.ts";
import type { LocalApi, PeerStart, Runtime, WgStart } from "../../src/cli/runtime.ts";
import type { Denial, Status } from "../../src/peer/local-api-schema.ts";
import { type FakeRuntime, fakeRuntime, lastJson, type Outcome, run } from "./command-line.ts";

const TOKEN = "wb_join_AQAVcanarycanarycanarycanary_0badc0de";
const NOW_MS = 1_700_000_000_000;

const denial: Denial = {
  id: "d_0123456789",
  atMs: NOW_MS,
  hop: "source",
  identity: "agent:coder",
  destination: "production\u001b[2J",
  protocol: "tcp",
  port: 80,
  reason: "NO_GRANT",
  policyVersion: 3,
  hint: "ask for a grant",
};

const ready = {
  identity: "agent:coder",
  session: "s_1",
  addresses: ["fd00::1"],
  entryPoints: [{ kind: "socks5", listen: "127.0.0.1:1080", protection: "owner-sock-diag" }],
} as const;

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "wirebadge-cli-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

interface Up {
  readonly outcome: Outcome;
  readonly started: PeerStart | undefined;
  readonly runtime: FakeRuntime;
}

/** Runs `up` until its ready line, then sends SIGINT. */
async function up(words: readonly string[], options: { env?: NodeJS.ProcessEnv; stdin?: string } = {}): Promise<Up> {
  let started: PeerStart | undefined;
  const runtime = fakeRuntime(
    {},
    {
      startPeer: async (start: PeerStart) => {
        started = start;
        setTimeout(() => {
          start.onDenial(denial);
          runtime.signals.emit("SIGINT");
        }, 5);
        return { ...ready, stop: async () => undefined, stopped: new Promise<undefined>(() => undefined) };
      },
    },
  );
  const outcome = await run(["up", ...words], { ...options, runtime });
  return { outcome, started, runtime };
}

describe("up", () => {
  it("takes the token from a file, and passes everything on", async () => {
    const file = join(folder, "token");
    writeFileSync(file, `${TOKEN}\n`, { mode: 0o600 });
    const options = ["--route", "10.20.0.0/16", "--serve", "a=127.0.0.1:80", "--serve", "b", "--socks", "127.0.0.1:0"];
    const more = [
      "--forward",
      "5432=db:5432",
      "--expose",
      "127.0.0.1:3000=80",
      "--listen-port",
      "51820",
      "--require",
      "native",
    ];
    const { outcome, started } = await up(["--token-file", file, "--state", folder, ...options, ...more]);
    expect(started).toMatchObject({
      token: `${TOKEN}\n`,
      stateDir: folder,
      listenPort: 51_820,
      routes: ["10.20.0.0/16"],
      serves: ["a=127.0.0.1:80", "b"],
      socks: "127.0.0.1:0",
      forwards: ["5432=db:5432"],
      exposes: ["127.0.0.1:3000=80"],
      allowRemote: false,
      requireNative: true,
    });
    expect(outcome.code).toBe(0);
    expect(outcome.stdout).toBe(
      "ready: agent:coder s_1 fd00::1\n  socks5     127.0.0.1:1080 (only this user: asked of the kernel)\n",
    );
  });

  it("--tun asks for a device, by name or the first free one, and says whose badge it is", async () => {
    expect((await up(["--tun"])).started).toMatchObject({ tun: "", shared: false });
    expect((await up(["--tun", "wb0", "--shared"])).started).toMatchObject({ tun: "wb0", shared: true });
    expect((await up([])).started).toMatchObject({ tun: undefined, shared: false });
    const runtime = fakeRuntime(
      {},
      {
        startPeer: async () => {
          setTimeout(() => runtime.signals.emit("SIGINT"), 5);
          const stopped = new Promise<undefined>(() => undefined);
          return { ...ready, entryPoints: [], tun: "wirebadge0", stop: async () => undefined, stopped };
        },
      },
    );
    expect((await run(["up", "--tun"], { runtime })).stdout).toBe(
      "ready: agent:coder s_1 fd00::1 on wirebadge0\n  every process of this host shares this badge\n",
    );
    expect(JSON.parse((await run(["up", "--tun", "--json"], { runtime })).stdout)).toMatchObject({
      tun: "wirebadge0",
      note: "every process of this host shares this badge",
    });
  });

  it.each([
    [["--tun", "a name"], "no interface can be called"],
    [["--tun", "sixteen-letters-"], "no interface can be called"],
    [["--shared"], "--shared has no use without --tun"],
    [["--tun", "--socks"], "--socks has no use with --tun"],
    [["--tun", "--forward", "1=a:2"], "--forward has no use with --tun"],
    [["--tun", "--expose", "1=2"], "--expose has no use with --tun"],
  ])("%s is refused with a hint, and nothing is started", async (words, message) => {
    const { outcome, started } = await up(words);
    expect([outcome.code, started]).toEqual([2, undefined]);
    expect(outcome.stderr).toContain(message);
    expect(outcome.stderr).toContain("hint: ");
  });

  it("takes the token from standard input or the environment, which then has it no more", async () => {
    expect((await up(["--token-file", "-"], { stdin: TOKEN })).started?.token).toBe(TOKEN);
    const env = { WIREBADGE_TOKEN: TOKEN, OTHER: "x" };
    expect((await up([], { env })).started?.token).toBe(TOKEN);
    expect(env).toEqual({ OTHER: "x" });
    const unused = { WIREBADGE_TOKEN: TOKEN };
    await up(["--token-file", "-"], { stdin: "other", env: unused });
    expect(unused).toEqual({});
  });

  it("without a token goes on with the state folder's session", async () => {
    const { started } = await up(["--socks"]);
    expect([started?.token, started?.stateDir, started?.socks]).toEqual([undefined, undefined, ""]);
  });

  it("prints one JSON object when ready, and denials on standard error, as a line or as JSON", async () => {
    const json = (await up(["--json"])).outcome;
    expect(JSON.parse(json.stdout)).toEqual({ event: "ready", ...ready, pid: process.pid });
    expect(JSON.parse(json.stderr)).toEqual({ event: "denial", ...denial });
    expect((await up([])).outcome.stderr).toBe(
      "denied d_0123456789 agent:coder to production\\u{1b}[2J tcp:80: NO_GRANT " +
        "(policy version 3, at the source); ask for a grant\n",
    );
  });

  it("warns of a token file that others can read, and says which can't be read", async () => {
    const file = join(folder, "token");
    writeFileSync(file, TOKEN);
    chmodSync(file, 0o644);
    const { outcome } = await up(["--token-file", file]);
    expect(outcome.stderr).toContain("mode 644: others can read the token; chmod 600");
    const missing = await run(["up", "--token-file", join(folder, "none")]);
    expect([missing.code, missing.stderr]).toEqual([
      2,
      `error TOKEN_INVALID: the token file ${join(folder, "none")} can't be read (ENOENT)\n` +
        "hint: see that the path is right and that the file is yours to read\n",
    ]);
    expect((await run(["up", "--token-file", "-"], { stdin: "x".repeat(20_000) })).stderr).toContain("TOKEN_INVALID");
  });

  it("prints no token, whatever an error or a log line holds", async () => {
    const runtime = fakeRuntime(
      {},
      {
        startPeer: async (start: PeerStart) => {
          start.logger.error({ token: start.token, nested: { why: `bad ${start.token}` } }, `refused ${start.token}`);
          throw new WirebadgeError("TOKEN_INVALID", `what is ${start.token}?`, { hint: `not ${start.token}` });
        },
      },
    );
    for (const more of [[], ["--json"]]) {
      const { code, stdout, stderr } = await run(["up", ...more], { runtime, env: { WIREBADGE_TOKEN: TOKEN } });
      expect(code).toBe(2);
      expect(stdout + stderr).not.toContain("canary");
      expect(stdout + stderr).toContain("wb_join_[hidden]");
    }
  });
});

describe("a command that stays", () => {
  const stayWith = async (
    peer: Partial<Awaited<ReturnType<Runtime["startPeer"]>>>,
    act: (runtime: FakeRuntime) => void,
  ): Promise<{ outcome: Outcome; runtime: FakeRuntime; tookMs: number }> => {
    const runtime = fakeRuntime(
      {},
      {
        startPeer: async () => {
          setTimeout(() => act(runtime), 5);
          return { ...ready, stop: async () => undefined, stopped: new Promise<undefined>(() => undefined), ...peer };
        },
      },
    );
    const startedMs = performance.now();
    const outcome = await run(["up"], { runtime });
    return { outcome, runtime, tookMs: performance.now() - startedMs };
  };

  it.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
    "stops on %s with exit code 0 and takes its " + "listeners away",
    async (name) => {
      let stops = 0;
      const stop = async (): Promise<void> => {
        stops += 1;
      };
      const { outcome, runtime } = await stayWith({ stop }, (fake) => fake.signals.emit(name));
      expect([outcome.code, stops, runtime.signals.listenerCount(name)]).toEqual([0, 1, 0]);
    },
  );

  it("ends within 1.5 s even if stopping hangs", async () => {
    const { outcome, tookMs } = await stayWith({ stop: () => new Promise(() => undefined) }, (fake) =>
      fake.signals.emit("SIGTERM"),
    );
    expect(outcome.code).toBe(0);
    expect(tookMs).toBeLessThan(1_500);
  });

  it("is killed by a second signal", async () => {
    const { runtime } = await stayWith({ stop: () => new Promise(() => undefined) }, (fake) => {
      fake.signals.emit("SIGINT");
      expect(() => fake.signals.emit("SIGINT")).toThrow("exit 130");
    });
    expect(runtime.signals.exitedWith).toBe(130);
  });

  it("ends with the error that ended it", async () => {
    const stopped = Promise.resolve(
      new WirebadgeError("SESSION_REVOKED", "this session was revoked", { hint: "get a new token" }),
    );
    const { outcome } = await stayWith({ stopped }, () => undefined);
    expect([outcome.code, outcome.stderr]).toEqual([
      2,
      "error SESSION_REVOKED: this session was revoked\nhint: get a " + "new token\n",
    ]);
  });

  it("can be stopped while it is still starting", async () => {
    const runtime = fakeRuntime(
      {},
      {
        startPeer: () => {
          setTimeout(() => runtime.signals.emit("SIGINT"), 5);
          return new Promise(() => undefined);
        },
      },
    );
    const outcome = await run(["up"], { runtime });
    expect([outcome.code, outcome.stdout]).toEqual([0, ""]);
  });
});

describe("wg", () => {
  it("passes the file's text and name on", async () => {
    const file = join(folder, "home.conf");
    writeFileSync(file, "[Interface]\n", { mode: 0o600 });
    let started: WgStart | undefined;
    const runtime = fakeRuntime(
      {},
      {
        startWgMode: async (start: WgStart) => {
          started = start;
          setTimeout(() => runtime.signals.emit("SIGTERM"), 5);
          return {
            publicKey: "key=",
            addresses: ["10.0.0.2"],
            entryPoints: [],
            stop: async () => undefined,
            stopped: new Promise<undefined>(() => undefined),
          };
        },
      },
    );
    const outcome = await run(["wg", file, "--socks", "127.0.0.1:0", "--ignore-hooks"], { runtime });
    expect(started).toMatchObject({
      configText: "[Interface]\n",
      fileName: file,
      socks: "127.0.0.1:0",
      ignoreHooks: true,
    });
    expect([outcome.code, outcome.stdout]).toEqual([0, "ready: key= 10.0.0.2\n"]);
    expect((await run(["wg", join(folder, "none.conf")])).stderr).toContain("error CONFIG_INVALID");
  });
});

describe("questions to a running peer", () => {
  const api = (answers: Partial<LocalApi>): FakeRuntime => {
    const asked: (string | undefined)[] = [];
    const unexpected = async (): Promise<never> => {
      throw new Error("not expected");
    };
    const all = {
      status: unexpected,
      whois: unexpected,
      can: unexpected,
      denials: unexpected,
      ping: unexpected,
      ...answers,
    };
    return fakeRuntime(
      {},
      {
        localApi: async (stateDir) => {
          asked.push(stateDir);
          if (stateDir === "none") throw new WirebadgeError("PEER_NOT_RUNNING", "no peer runs there");
          return all;
        },
      },
    );
  };

  it.each([
    [true, 0, "allowed: service:staging (ALLOWED_BY_RULE by r, policy version 2)\n"],
    [false, 1, "denied: service:staging (NO_GRANT, policy version 2)\n  ask for it\n"],
  ])("can DEST has an exit code of its own: allowed %s is %i", async (allowed, code, text) => {
    const answer = allowed
      ? { destination: "service:staging", allowed, reason: "ALLOWED_BY_RULE", ruleId: "r", policyVersion: 2 }
      : { destination: "service:staging", allowed, reason: "NO_GRANT", policyVersion: 2, hint: "ask for it" };
    const runtime = api({ can: async () => answer });
    const outcome = await run(["can", "service:staging"], { runtime });
    expect([outcome.code, outcome.stdout]).toEqual([code, text]);
    expect((await run(["can", "service:staging", "--state", "none"], { runtime })).code).toBe(2);
  });

  it("whois says who, for whom, and what was asked for", async () => {
    const answer = {
      of: "127.0.0.1:5",
      session: "s_1",
      identity: "agent:coder",
      sponsor: "user:ana@example.com",
      tags: ["a", "b"],
      addresses: ["fd00::1"],
      via: "dialled" as const,
      destination: "service:staging",
    };
    const runtime = api({ whois: async () => answer });
    expect((await run(["whois", "127.0.0.1:5"], { runtime })).stdout).toBe(
      "identity   agent:coder\nsession    s_1\nsponsor    user:ana@example.com\n" +
        "tags       a b\naddresses  fd00::1\nasked for  service:staging\n",
    );
    expect(lastJson(await run(["whois", "127.0.0.1:5", "--json"], { runtime }))).toEqual(answer);
  });

  it("denials and ping are one line each", async () => {
    const ping = {
      name: "gw",
      identity: "node:gw",
      address: "fd00::2",
      rttMs: 1.234,
      path: "direct" as const,
      endpoint: "10.0.0.1:5",
    };
    const runtime = api({ denials: async () => ({ denials: [denial] }), ping: async () => ping });
    expect((await run(["denials"], { runtime })).stdout).toMatch(
      /^denied d_0123456789 agent:coder to production\\u\{1b\}/,
    );
    expect((await run(["ping", "gw"], { runtime })).stdout).toBe(
      "node:gw (fd00::2) answered in 1.2 ms (direct, " + "10.0.0.1:5)\n",
    );
    const quiet = api({ denials: async () => ({ denials: [] }) });
    expect((await run(["denials"], { runtime: quiet })).stdout).toBe("nothing was denied\n");
  });

  it("status shows the lease, the peers and why a service may not be reached", async () => {
    const status: Status = {
      version: "0.1.0",
      mode: "coordinator",
      pid: 1,
      startedMs: NOW_MS - 60_000,
      nowMs: NOW_MS,
      identity: "agent:coder",
      tags: [],
      publicKey: "k",
      addresses: ["fd00::1"],
      listenPort: 5,
      coordinator: { url: "http://x", connected: false, lastError: "ECONNREFUSED" },
      policyVersion: 2,
      revision: 9,
      lease: { endMs: NOW_MS + 200_000, remainingMs: 200_000 },
      udp: { name: "native", reason: "" },
      crypto: { name: "portable", reason: "no FFI" },
      ownerCheck: "proc",
      peers: [
        {
          publicKey: "p",
          identity: "node:gw",
          addresses: ["fd00::2"],
          prefixes: [],
          path: "direct",
          rxBytes: 1,
          txBytes: 2,
        },
      ],
      services: [{ name: "production", protocol: "tcp", ports: "80", addresses: [], allowed: false, hint: "ask ana" }],
      serving: [],
      refusedOffers: [{ offer: "::/0", reason: "not named" }],
      entryPoints: [],
      counters: {},
    };
    const { stdout } = await run(["status"], { runtime: api({ status: async () => status }) });
    expect(stdout).toContain("coordinator  http://x (away: ECONNREFUSED)\n");
    expect(stdout).toContain("lease        ends in 3m 20s\n");
    expect(stdout).toMatch(/^node:gw +fd00::2 +direct +- +1 B +2 B$/m);
    expect(stdout).toMatch(/^production +tcp +80 +no: ask ana$/m);
    expect(stdout).toContain("offer ::/0 refused: not named");
  });
});
