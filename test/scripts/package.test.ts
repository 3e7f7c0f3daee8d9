// The package as its users get it: packed, installed into an empty folder without install scripts, run from there.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { toBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { needs, requireTool } from "../needs.ts";

const top = fileURLToPath(new URL("../..", import.meta.url));
const COPIED = [
  "bin",
  "src",
  "examples",
  "package.json",
  "package-lock.json",
  "tsconfig.json",
  "tsconfig.build.json",
  ".npmrc",
];
const TEXTS = ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"];

/** npm runs on the Node of these tests: the first on the PATH. */
const env: NodeJS.ProcessEnv = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env["PATH"]}` };

describe.runIf(needs("npm"))("the package", () => {
  const base = mkdtempSync(join(tmpdir(), "wirebadge-package-"));
  const source = join(base, "source");
  const user = join(base, "user");
  const installed = join(user, "node_modules/wirebadge");
  const npm = (cwd: string, ...args: string[]): string =>
    execFileSync(requireTool("npm"), args, { cwd, env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  let packed: readonly string[] = [];

  beforeAll(() => {
    mkdirSync(source);
    mkdirSync(user);
    for (const name of [...COPIED, ...TEXTS])
      if (existsSync(join(top, name))) cpSync(join(top, name), join(source, name), { recursive: true });
    symlinkSync(join(top, "node_modules"), join(source, "node_modules"));
    const [made] = JSON.parse(npm(source, "pack", "--json")) as { filename: string; files: { path: string }[] }[];
    packed = made!.files.map((file) => file.path);
    writeFileSync(join(user, "package.json"), '{ "name": "user", "private": true }');
    npm(user, "install", "--ignore-scripts", "--no-audit", "--no-fund", join(source, made!.filename));
  }, 240_000);
  afterAll(() => rmSync(base, { recursive: true }));

  it("holds launchers, every source but the simulator as JavaScript with types, and the texts", () => {
    const sources = readdirSync(join(top, "src"), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts") && !path.startsWith("sim/"))
      .map((path) => `dist/${path.replace(/\.ts$/, "")}`);
    expect(sources.length).toBeGreaterThan(20);
    for (const path of sources) expect(packed).toEqual(expect.arrayContaining([`${path}.js`, `${path}.d.ts`]));
    expect(packed).toEqual(
      expect.arrayContaining(["package.json", "bin/wirebadge", "bin/launch.js", "bin/package.json"]),
    );
    for (const name of TEXTS) if (existsSync(join(top, name))) expect(packed).toContain(name);
    expect(
      packed.filter((path) => /^(src|test|node_modules|benchmarks)\/|^dist\/sim\/|\.tsbuildinfo$/.test(path)),
    ).toEqual([]);
  });

  it("imports nothing by a .ts name and nothing from outside its dependencies", () => {
    for (const path of packed.filter((name) => /^dist\/.*\.js$/.test(name)))
      expect(readFileSync(join(installed, path), "utf8"), path).not.toMatch(/["'`]\.\.?\/[\w./-]+\.ts["'`]/);
  });

  it("surprises nobody with a script at install time", () => {
    const { scripts = {} } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as {
      scripts?: Record<string, string>;
    };
    for (const name of ["preinstall", "install", "postinstall", "prepare"]) expect(scripts[name]).toBeUndefined();
  });

  const program = join(user, "node_modules/.bin/wirebadge");
  const run = (...args: string[]): string =>
    execFileSync(program, args, { cwd: user, env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  const running: ChildProcess[] = [];
  afterEach(async () => {
    const ended = running.splice(0).map((child) => {
      child.kill("SIGTERM");
      return child.exitCode === null && child.signalCode === null ? once(child, "exit") : undefined;
    });
    await Promise.all(ended);
  });

  /** Starts a command that stays; resolves to what it says when it is ready. */
  async function stay(...args: string[]): Promise<Record<string, unknown>> {
    const child = spawn(program, [...args, "--json"], { cwd: user, env, stdio: ["ignore", "pipe", "pipe"] });
    running.push(child);
    let errors = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
    const exited = once(child, "exit").then(() => Promise.reject(new Error(`${args[0]} ended: ${errors}`)));
    const [first] = (await Promise.race([once(child.stdout.setEncoding("utf8"), "data"), exited])) as [string];
    exited.catch(() => undefined); // it may end later: that is how the test ends it
    return JSON.parse(first) as Record<string, unknown>;
  }

  it("says its version", () => {
    const { version } = JSON.parse(readFileSync(join(top, "package.json"), "utf8")) as { version: string };
    expect(run("--version").trim()).toBe(version);
  });

  it("runs a network: coordinator, a policy written as a module, up", async () => {
    const ready = await stay(
      "coordinator",
      "--data",
      "data",
      "--listen",
      "127.0.0.1:0",
      "--admin-listen",
      "127.0.0.1:0",
    );
    const admin = ["--url", String(ready["adminUrl"])];
    env["WIREBADGE_ADMIN_TOKEN"] = readFileSync(join(user, "data/admin.token"), "utf8").trim();
    writeFileSync(
      join(user, "policy.ts"),
      `import { definePolicy } from "wirebadge/policy";
       export default definePolicy({ grants: [{ from: "agent:coder", to: "node:box tcp:8080" }] });`,
    );
    expect(run("policy", "set", "policy.ts", ...admin)).toContain("version 1");
    writeFileSync(join(user, "token"), run("token", "create", "--as", "node:box", ...admin), { mode: 0o600 });
    const peer = await stay("up", "--token-file", "token", "--state", "box");
    expect(peer).toMatchObject({ event: "ready", identity: "node:box" });
    const sessions = JSON.parse(run("session", "list", ...admin, "--json")) as unknown;
    expect(JSON.stringify(sessions)).toContain(String(peer["session"]));
  });

  it("joins from within a program, and takes an unchanged one along", async () => {
    const ready = await stay(
      "coordinator",
      "--data",
      "net",
      "--listen",
      "127.0.0.1:0",
      "--admin-listen",
      "127.0.0.1:0",
    );
    const admin = ["--url", String(ready["adminUrl"])];
    env["WIREBADGE_ADMIN_TOKEN"] = readFileSync(join(user, "net/admin.token"), "utf8").trim();
    writeFileSync(
      join(user, "policy.json"),
      JSON.stringify({ grants: [{ from: "agent:coder", to: "node:greeter tcp:80" }] }),
    );
    run("policy", "set", "policy.json", ...admin);
    const token = (as: string): string => run("token", "create", "--as", as, ...admin, "--json");
    const secret = (as: string): string => String((JSON.parse(token(as)) as { token: string }).token);
    const environment = (as: string): NodeJS.ProcessEnv => ({ ...env, WIREBADGE_TOKEN: secret(as) });
    const greeter = spawn(process.execPath, [join(installed, "examples/greeter.js")], {
      env: environment("node:greeter"),
      stdio: ["ignore", "pipe", "inherit"],
    });
    running.push(greeter);
    await once(greeter.stdout, "data");
    writeFileSync(
      join(user, "agent.mjs"),
      `import { join } from "wirebadge";
       await using net = await join({ token: process.env.WIREBADGE_TOKEN });
       console.log(await (await net.fetch("http://greeter/")).text());`,
    );
    writeFileSync(join(user, "plain.mjs"), 'console.log(await (await fetch("http://greeter/")).text());');
    const runNode = (...args: string[]): string =>
      execFileSync(process.execPath, args, { cwd: user, env: environment("agent:coder"), encoding: "utf8" });
    expect(runNode("agent.mjs").trim()).toBe("hello agent:coder");
    expect(runNode("--import", "wirebadge/register", "plain.mjs").trim()).toBe("hello agent:coder");
  });

  it("carries a connection between two wg files", async () => {
    const service = createServer((_request, response) => response.end("from behind the tunnel"));
    await once(service.listen(0, "127.0.0.1"), "listening");
    const crypto = new PortableCrypto();
    const keys = [0x51, 0x52].map((byte) => new Uint8Array(32).fill(byte));
    const [one, other] = [await freeUdpPort(), await freeUdpPort()];
    const configure = (own: number, port: number, theirPort: number): string => `[Interface]
      PrivateKey = ${toBase64(keys[own]!)}
      Address = 10.9.0.${own + 1}/24
      ListenPort = ${port}
      [Peer]
      PublicKey = ${toBase64(crypto.publicKey(keys[1 - own]!))}
      AllowedIPs = 10.9.0.${2 - own}/32
      Endpoint = 127.0.0.1:${theirPort}`;
    writeFileSync(join(user, "one.conf"), configure(0, one, other), { mode: 0o600 });
    writeFileSync(join(user, "other.conf"), configure(1, other, one), { mode: 0o600 });
    const { port } = service.address() as AddressInfo;
    await stay("wg", "other.conf", "--expose", `127.0.0.1:${port}=80`);
    const ready = await stay("wg", "one.conf", "--forward", "127.0.0.1:0=10.9.0.2:80");
    const forward = (ready["entryPoints"] as { kind: string; listen: string }[]).find(({ kind }) => kind === "forward");
    const answer = await fetch(`http://${forward?.listen}/`);
    expect(await answer.text()).toBe("from behind the tunnel");
    service.close();
  });
});

async function freeUdpPort(): Promise<number> {
  const socket = createSocket("udp4");
  await once(socket.bind(0, "127.0.0.1"), "listening");
  const { port } = socket.address();
  socket.close();
  return port;
}
