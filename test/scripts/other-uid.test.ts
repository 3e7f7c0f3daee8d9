// Another user of the same machine at a local entry point. Needs root, to become that user.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { afterEach, expect, test } from "vitest";
import type { RefusedClient } from "../../src/peer/local-listener.ts";
import { OwnerCheck } from "../../src/peer/owner.ts";
import { Socks5Server } from "../../src/peer/socks5.ts";
import { needs } from "../needs.ts";
import { address, World } from "../peer/world.ts";

const OTHER_UID = 65_534;
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

/** Greets the SOCKS5 port from a process of that uid; what it answered. */
async function greet(port: number, host: string, uid: number): Promise<string> {
  const program = `const s = require("net").connect(${port}, ${JSON.stringify(host)});
    let got = ""; s.on("data", (c) => { got += c.toString("hex"); s.end(); });
    s.on("error", () => {}); s.on("close", () => process.stdout.write("got:" + got)); s.write(Buffer.from([5, 1, 0]));`;
  const child = spawn(process.execPath, ["-e", program], {
    uid,
    gid: uid,
    env: {},
    cwd: "/",
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [answer] = await once(child.stdout, "data");
  return String(answer);
}

test.runIf(needs("linux", "ipv6", "root")).each([
  ["sock-diag", "127.0.0.1", {}],
  ["sock-diag", "::1", {}],
  ["proc", "127.0.0.1", { native: false }],
  ["proc", "::1", { native: false }],
] as const)("%s on %s: another uid gets nothing but an audit line, our own is served", async (mode, host, options) => {
  const refused: RefusedClient[] = [];
  const owner = OwnerCheck.open(options);
  expect(owner.mode).toBe(mode);
  const world = new World();
  const server = await Socks5Server.open({
    at: { address: address(host), port: 0 },
    dialer: world.dialer(),
    turns: world.turns,
    owner,
    onRefused: (line) => refused.push(line),
  });
  cleanups.push(
    () => server.close(),
    () => owner.close(),
  );
  const port = "port" in server.at ? server.at.port : 0;
  expect(await greet(port, host, OTHER_UID)).toBe("got:");
  expect(refused).toMatchObject([{ reason: "other-uid", uid: OTHER_UID }]);
  expect(await greet(port, host, 0)).toBe("got:0500");
  expect(refused).toHaveLength(1);
});
