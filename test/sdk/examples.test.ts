// The examples, as their readers run them: a process each, over a real network, and a real PostgreSQL where there is
// one.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { needs } from "../needs.ts";
import { type RealPostgres, startPostgres } from "./real-postgres.ts";
import { Scene } from "./scene.ts";

const HOOKS = fileURLToPath(new URL("as-wirebadge.ts", import.meta.url));
const example = (name: string): string => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));

/** Of the example, to its end. */
function run(name: string, words: readonly string[], env: NodeJS.ProcessEnv) {
  const args = ["--import", HOOKS, example(name), ...words];
  return new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
    execFile(process.execPath, args, { env: { PATH: process.env["PATH"], ...env } }, (error, stdout, stderr) =>
      resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

describe("examples/greeter.js", () => {
  let scene: Scene;
  let greeter: ChildProcess;
  beforeAll(async () => {
    scene = await Scene.start({ grants: [{ from: "agent:coder", to: "node:greeter tcp:80" }] });
    const env = { PATH: process.env["PATH"], WIREBADGE_TOKEN: await scene.token("node:greeter") };
    greeter = spawn(process.execPath, ["--import", HOOKS, example("greeter.js")], {
      env,
      stdio: ["ignore", "pipe", 2],
    });
    const [said] = await once(greeter.stdout!, "data");
    expect(String(said)).toMatch(/^node:greeter listens at fd/);
  });
  afterAll(async () => {
    greeter.kill("SIGTERM");
    await once(greeter, "exit");
    await scene.end();
  });

  test("greets its caller by identity and sponsor, and nobody else", async () => {
    const token = await scene.token("agent:coder", { sponsor: "user:ana@example.com" });
    const coder = await scene.join("agent:coder", { token });
    const answer = await coder.fetch("http://greeter/");
    expect(await answer.text()).toBe("hello agent:coder, who works for user:ana@example.com\n");
    const other = await scene.join("agent:other");
    await expect(other.fetch("http://greeter/")).rejects.toMatchObject({ cause: { code: "EACCES" } });
  });
});

describe.runIf(needs("postgres", "initdb"))("examples/query-postgres.js", () => {
  let scene: Scene;
  let postgres: RealPostgres;
  beforeAll(async () => {
    postgres = await startPostgres();
    scene = await Scene.start({
      services: { "staging-db": { at: "db.internal tcp:5432", via: ["node:gw"] } },
      grants: [{ from: "agent:coder", to: "service:staging-db" }],
    });
    await scene.gateway("node:gw", { serves: [`staging-db=127.0.0.1:${postgres.port}`] });
  });
  afterAll(async () => {
    await scene.end();
    await postgres.end();
  });

  test("an agent in 20 lines queries a private PostgreSQL through a gateway", async () => {
    expect(readFileSync(example("query-postgres.js"), "utf8").trimEnd().split("\n").length).toBeLessThanOrEqual(20);
    const env = { WIREBADGE_TOKEN: await scene.token("agent:coder"), PGUSER: "agent", PGDATABASE: "postgres" };
    const outcome = await run("query-postgres.js", ["select current_user as who, 6 * 7 as answer"], env);
    expect(outcome).toEqual({ code: 0, stdout: '[{"who":"agent","answer":42}]\n', stderr: "" });
  });

  test("one without a grant is told the denial", async () => {
    const env = { WIREBADGE_TOKEN: await scene.token("agent:other"), PGUSER: "agent", PGDATABASE: "postgres" };
    const outcome = await run("query-postgres.js", [], env);
    expect(outcome.code).toBe(1);
    expect(outcome.stderr).toMatch(
      /^connect EACCES staging-db:5432: denied NO_GRANT \(d_\w+\); if there is such a place/,
    );
  });
});
