// Several badges on one machine: each local entry point gives its own badge alone, to its own user alone; and no secret
// of any process of the network stands where others could read it.
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fromBase64, toBase64Url, toHex } from "../../src/base/bytes.ts";
import { SocksReplyError } from "../../src/cli/socks-client.ts";
import { parseJoinToken } from "../../src/control/token.ts";
import { needs } from "../needs.ts";
import { exchange, type Recorder, TestNetwork, TestPeer } from "./network.ts";
import { cleanEnvironment, type Program, until } from "./program.ts";

const OTHER_UID = 65_534;
const startedMs = Date.now();

let network: TestNetwork;
let service: Recorder;
let gateway: TestPeer;
let coder: TestPeer;
let writer: TestPeer;
const tokens: string[] = [];
const programs: Program[] = [];

/** As `network.join`, with everything logged; the token is kept, to be looked for. */
async function enrol(identity: string, words: readonly string[], token: readonly string[] = []): Promise<TestPeer> {
  tokens.push(await network.token(identity, token));
  const options = { env: { ...cleanEnvironment(), TMPDIR: network.folder, HOME: network.folder } };
  const state = join(network.folder, identity.replace(":", "-"));
  const peer = new TestPeer(network, identity, state, [...words, "--log", "trace"], options);
  await peer.up(tokens.at(-1));
  programs.push(peer.program);
  return peer;
}

beforeAll(async () => {
  network = await TestNetwork.start();
  service = await network.service("service");
  await network.setPolicy({
    services: { staging: { at: `127.0.0.1 tcp:${service.port}`, via: ["node:gw"] } },
    grants: [{ from: "kind:agent", to: "service:staging" }],
  });
  const entries = ["--socks", "127.0.0.1:0", "--forward", "127.0.0.1:0=service:staging"];
  gateway = await enrol("node:gw", ["--serve", `staging=${service.at}`]);
  coder = await enrol("agent:coder", entries, ["--sponsor", "user:ana@example.com"]);
  writer = await enrol("agent:writer", [
    ...entries,
    "--forward",
    `${join(network.folder, "agent-writer/db")}=staging:${service.port}`,
  ]);
  programs.push(network.coordinator, service.program);
}, 120_000);

afterAll(() => network?.close());

function forwardOf(peer: TestPeer, index = 0): { host: string; port: number } | { path: string } {
  const { listen } = peer.entryPoints.filter(({ kind }) => kind === "forward")[index]!;
  const [host, port] = listen.split(":");
  return listen.startsWith("/") ? { path: listen } : { host: host!, port: Number(port) };
}

/** Who the service behind the gateway is told stands behind the connection that brought this text. */
async function calledBy(socket: Socket, text: string): Promise<string> {
  try {
    expect(await exchange(socket, text)).toBe(text);
    const from = service.received.find((record) => record.text === text)?.from ?? "";
    const outcome = await network.command(["whois", from, "--state", gateway.state, "--json"]);
    const { identity, sponsor, session } = JSON.parse(outcome.stdout) as Record<string, string>;
    return [identity, sponsor ?? "nobody", session].join(" ");
  } finally {
    socket.destroy();
  }
}

test("each entry point of two agents gives its own badge alone: the service is told who called", async () => {
  for (const round of ["one", "two"]) {
    for (const [peer, sponsor] of [
      [coder, "user:ana@example.com"],
      [writer, "nobody"],
    ] as const) {
      const badge = `${peer.identity} ${sponsor} ${peer.session}`;
      const bySocks = await peer.connect("staging", service.port);
      expect(await calledBy(bySocks, `socks ${peer.identity} ${round}`)).toBe(badge);
      expect(await calledBy(createConnection(forwardOf(peer)), `forward ${peer.identity} ${round}`)).toBe(badge);
    }
  }
  const byPath = createConnection(forwardOf(writer, 1));
  expect(await calledBy(byPath, "a socket's path")).toBe(`agent:writer nobody ${writer.session}`);
});

test("at the same time, too: connections of both, crossed", async () => {
  const open = [coder, writer, coder, writer].map((peer) => peer.connect("staging", service.port));
  const badges = await Promise.all(
    (await Promise.all(open)).map((socket, index) => calledBy(socket, `crossed ${index}`)),
  );
  expect(badges.map((badge) => badge.split(" ")[0])).toEqual([
    "agent:coder",
    "agent:writer",
    "agent:coder",
    "agent:writer",
  ]);
});

/** What a process of another user reads from the entry point: bytes in hexadecimal, or the error's code. */
async function asOther(entry: object, send: string): Promise<string> {
  const script = `const s = require("net").connect(${JSON.stringify(entry)}); let got = "";
    s.on("data", (c) => got += c.toString("hex")); s.on("error", (e) => { got += e.code; });
    s.on("close", () => process.stdout.write("got:" + got)); s.write(Buffer.from("${send}", "hex"));`;
  const program = network.start("another user", process.execPath, ["-e", script], {
    uid: OTHER_UID,
    env: {},
    cwd: "/",
  });
  await program.exited;
  return program.stdoutLines.join("").replace("got:", "");
}

describe.runIf(needs("linux", "root"))("another user of the machine", () => {
  test.each(["SOCKS", "forward"])("gets nothing from a TCP %s entry point but an audit line", async (kind) => {
    const connections = (): number => service.received.filter(({ event }) => event === "opened").length;
    const before = connections();
    const entry = kind === "SOCKS" ? coder.socks : forwardOf(coder);
    expect(await asOther(entry, "050100")).toMatch(/^(?:ECONNRESET|EPIPE)?$/);
    const listen = "port" in entry ? `${entry.host}:${entry.port}` : "";
    const line = await until("audit line", () =>
      coder.program.records.find((record) => record["event"] === "entry-refused" && record["listen"] === listen),
    );
    expect(line).toMatchObject({ reason: "other-uid", uid: OTHER_UID });
    expect(connections()).toBe(before);
  });

  test("doesn't even reach the sockets in the state folder", async () => {
    for (const path of [join(writer.state, "peer.sock"), join(writer.state, "db")]) {
      expect(await asOther({ path }, "00")).toBe("EACCES");
    }
  });
});

/** A secret in every form that it could be written in. */
class Canary {
  readonly name: string;
  readonly #forms: readonly Buffer[];

  constructor(name: string, ...secrets: readonly (Uint8Array | string)[]) {
    this.name = name;
    this.#forms = secrets.flatMap((secret) => {
      if (typeof secret === "string") return [Buffer.from(secret)];
      const base64 = Buffer.from(secret).toString("base64").replace(/=+$/, "");
      return [Buffer.from(secret), ...[toHex(secret), base64, toBase64Url(secret)].map((text) => Buffer.from(text))];
    });
  }

  isIn(bytes: Buffer): boolean {
    return this.#forms.some((form) => bytes.includes(form));
  }
}

/** All secrets of the network, each with the one folder where it may stand. */
function canaries(): (readonly [canary: Canary, home: string])[] {
  const found: [Canary, string][] = [];
  const admin = readFileSync(join(network.dataFolder, "admin.token"), "utf8").trim();
  found.push([new Canary("the admin token", admin, admin.split("_").at(-2)!), network.dataFolder]);
  const keys = JSON.parse(readFileSync(join(network.dataFolder, "keys.json"), "utf8")) as Record<string, string>;
  for (const key of ["noise", "sign"]) {
    found.push([new Canary(`the coordinator's ${key} key`, fromBase64(keys[key]!)!), network.dataFolder]);
  }
  for (const [index, peer] of [gateway, coder, writer].entries()) {
    const state = JSON.parse(readFileSync(join(peer.state, "state.json"), "utf8")) as Record<string, string>;
    for (const key of ["wireguardKey", "signSeed"]) {
      found.push([new Canary(`${peer.identity}'s ${key}`, fromBase64(state[key]!)!), peer.state]);
    }
    const token = tokens[index]!;
    found.push([new Canary(`${peer.identity}'s token`, token, parseJoinToken(token).secret), peer.state]);
  }
  return found;
}

const names = (bytes: Buffer): string[] =>
  canaries()
    .filter(([canary]) => canary.isIn(bytes))
    .map(([{ name }]) => name);

/** The processes that this test has started, and theirs. */
function processesOfNetwork(): number[] {
  const parents = new Map<number, number>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      parents.set(Number(pid), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    } catch (error) {
      if (!["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error; // it has ended
    }
  }
  const isOurs = (pid: number | undefined): boolean =>
    pid !== undefined && (programs.some((program) => program.pid === pid) || isOurs(parents.get(pid)));
  return [...parents.keys()].filter(isOurs);
}

describe.runIf(needs("linux"))("the secrets of all processes", () => {
  test("are found where they are looked for: in their own folders", () => {
    const files = [
      join(network.dataFolder, "admin.token"),
      join(network.dataFolder, "keys.json"),
      join(coder.state, "state.json"),
    ];
    expect(files.map((path) => names(readFileSync(path)).length)).toEqual([1, 2, 2]);
    expect(names(Buffer.from(`x${tokens.join(" ")}x`))).toHaveLength(3);
  });

  test("are in no log, no argument and no environment", async () => {
    await expect(coder.connect("nothing", 1)).rejects.toThrow(SocksReplyError); // something to log
    expect(processesOfNetwork().length).toBeGreaterThanOrEqual(programs.length);
    for (const pid of processesOfNetwork()) {
      for (const file of ["cmdline", "environ"]) expect(names(readFileSync(`/proc/${pid}/${file}`))).toEqual([]);
    }
    for (const program of programs) {
      expect(program.output).not.toBe("");
      expect([program.name, names(Buffer.from(program.output))]).toEqual([program.name, []]);
    }
  });

  test("are in no file outside their own state or data folder", () => {
    const files = (folder: string, recursive: boolean): string[] =>
      readdirSync(folder, { recursive, encoding: "utf8" }).map((name) => join(folder, name));
    const fresh = files(tmpdir(), false).filter((path) => {
      const stat = statSync(path, { throwIfNoEntry: false });
      return stat?.isFile() === true && stat.mtimeMs >= startedMs && stat.size < 16_777_216;
    });
    const own = files(network.folder, true).filter((path) => statSync(path).isFile());
    expect(own.length).toBeGreaterThan(5);
    const secrets = canaries();
    for (const path of [...own, ...fresh]) {
      const bytes = readFileSync(path);
      const foreign = secrets.filter(([canary, home]) => !path.startsWith(`${home}/`) && canary.isIn(bytes));
      expect([path, foreign.map(([{ name }]) => name)]).toEqual([path, []]);
    }
  });

  test("are in no answer to commands that are wrong", async () => {
    const token = tokens[1]!;
    const admin = readFileSync(join(network.dataFolder, "admin.token"), "utf8").trim();
    const stateFile = join(coder.state, "state.json");
    const { wireguardKey } = JSON.parse(readFileSync(stateFile, "utf8")) as { wireguardKey: string };
    const configs = [
      `[Interface]\nPrivateKey = ${wireguardKey}x\n`,
      `[Interface]\nPrivatKey = ${wireguardKey}\n`,
      `[Interface]\n${wireguardKey}\n`,
    ];
    const paths = configs.map((text, index) => {
      const path = join(coder.state, `${index}.conf`);
      writeFileSync(path, text, { mode: 0o600 });
      return path;
    });
    const adminAt = ["--url", network.adminUrl, "--data", network.dataFolder];
    const wrong: readonly (readonly [readonly string[], { stdin?: string; env?: NodeJS.ProcessEnv }])[] = [
      [["up", token], {}],
      [["up", `--token-file=${token}`], {}],
      [["upp", token], {}],
      [["token", "create", "--as", token, ...adminAt], {}],
      [["token", "revoke", admin, ...adminAt], {}],
      [["up", "--state", join(network.folder, "new"), "--token-file", "-"], { stdin: `${token.slice(0, -1)}!` }],
      [["up", "--state", join(network.folder, "new"), "--token-file", "-"], { stdin: admin }],
      [["up", "--state", join(network.folder, "new"), "--token-file", stateFile], {}],
      [["up", "--state", coder.state, "--token-file", "-"], { stdin: token }],
      [["policy", "check", stateFile, ...adminAt], {}],
      [["policy", "set", "-", ...adminAt], { stdin: token }],
      [["token", "list", "--url", "http://192.0.2.1:1", "--data", network.dataFolder], {}],
      [["token", "list", "--url", "http://127.0.0.1:1", "--data", network.dataFolder], {}],
      [["token", "list", "--url", network.url, "--data", network.dataFolder], {}],
      [["token", "list", "--url", network.adminUrl], { env: { ...cleanEnvironment(), WIREBADGE_ADMIN_TOKEN: token } }],
      [
        ["up", "--state", join(network.folder, "new")],
        { env: { ...cleanEnvironment(), WIREBADGE_TOKEN: `${token}x` } },
      ],
      [["wg", stateFile], {}],
      ...paths.map((path) => [["wg", path], {}] as const),
    ];
    for (const [words, options] of wrong) {
      for (const json of [[], ["--json"]]) {
        const { code, stdout, stderr } = await network.command([...words, ...json], options);
        const shown = words.filter((word) => !word.startsWith("wb_")).join(" ");
        expect([shown, code, names(Buffer.from(stdout + stderr))]).toEqual([shown, 2, []]);
      }
    }
  });
});
