// A real PostgreSQL on a loopback port of its own, with its data in a temporary folder. It refuses to run as root: then
// it runs as nobody.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chownSync, mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { requireTool } from "../needs.ts";

const NOBODY = 65_534;

export interface RealPostgres {
  readonly port: number;
  end(): Promise<void>;
}

/** User "agent", trusted; database "postgres". */
export async function startPostgres(): Promise<RealPostgres> {
  const folder = mkdtempSync(join(tmpdir(), "wb-pg-"));
  const isRoot = process.getuid?.() === 0;
  const as = isRoot ? { uid: NOBODY, gid: NOBODY } : {};
  if (isRoot) chownSync(folder, NOBODY, NOBODY);
  const data = join(folder, "data");
  const env = { PATH: process.env["PATH"], LC_ALL: "C" };
  const init = ["-D", data, "-U", "agent", "--auth=trust", "--no-sync"];
  execFileSync(requireTool("initdb"), init, { ...as, env, cwd: folder, stdio: "pipe" });
  const port = await freePort();
  const words = ["-D", data, "-p", String(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"];
  const child = spawn(requireTool("postgres"), words, { ...as, env, cwd: folder, stdio: "ignore" });
  const exited = once(child, "exit");
  for (let tries = 0; !(await isOpen(port)); tries++) {
    if (tries > 200 || child.exitCode !== null) throw new Error("PostgreSQL did not start");
    await delay(50);
  }
  return {
    port,
    end: async () => {
      child.kill("SIGTERM"); // it waits until its clients have gone
      await exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false; // not yet
  } finally {
    socket.destroy();
  }
}
