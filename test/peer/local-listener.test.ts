// Where a local socket may be opened: in a folder that is ours alone, at a path that nobody has.
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createConnection, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openUnixSocket } from "../../src/peer/local-listener.ts";
import { needs } from "../needs.ts";

let top: string;
let servers: Server[];

beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), "wb-l-"));
  servers = [];
});
afterEach(() => {
  for (const server of servers) server.close();
  rmSync(top, { recursive: true });
});

const open = async (path: string): Promise<void> => {
  const server = createServer();
  servers.push(server);
  await openUnixSocket(server, path);
};
const folder = (name: string, mode: number): string => {
  mkdirSync(join(top, name));
  chmodSync(join(top, name), mode);
  return join(top, name);
};

test("a folder that is open to others, or is reached by a link, is refused; one of our own is made", async () => {
  for (const mode of [0o701, 0o770, 0o777]) {
    const path = join(folder(`of-${mode}`, mode), "s");
    await expect(open(path)).rejects.toMatchObject({
      code: "USAGE",
      message: expect.stringContaining("open to others"),
    });
  }
  symlinkSync(folder("real", 0o700), join(top, "link"));
  await expect(open(join(top, "link", "s"))).rejects.toMatchObject({ code: "USAGE" });
  await open(join(top, "made", "s"));
});

test.runIf(needs("root"))("another user's folder is refused, closed as it may be", async () => {
  const path = folder("foreign", 0o700);
  chownSync(path, 12_345, 12_345);
  await expect(open(join(path, "s"))).rejects.toMatchObject({ code: "USAGE" });
});

test("what is no socket is left as it is, a live socket stays with its owner, a dead one is taken over", async () => {
  const file = join(folder("own", 0o700), "file");
  writeFileSync(file, "precious");
  await expect(open(file)).rejects.toMatchObject({ code: "PORT_TAKEN" });
  expect(readFileSync(file, "utf8")).toBe("precious");
  const path = join(top, "own", "s");
  await open(path);
  await expect(open(path)).rejects.toMatchObject({ code: "PORT_TAKEN" });
  const socket = createConnection({ path });
  await once(socket, "connect"); // the first one's still
  socket.destroy();
});

test("a path that is longer than the system takes is refused with what to do", async () => {
  const path = join(folder("own", 0o700), "s".repeat(108));
  await expect(open(path)).rejects.toMatchObject({ code: "USAGE", message: expect.stringContaining("too long") });
});
