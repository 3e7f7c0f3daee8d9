// The SOCKS client that the quickstart and tests use.
import { createServer, type Server } from "node:net";
import { afterEach, expect, test } from "vitest";
import { connectThroughSocks } from "../../src/cli/socks-client.ts";

let server: Server | undefined;
afterEach(() => server?.close());

test("a proxy that ends in the middle of its answer is an error at once, not after the time limit", async () => {
  server = createServer((socket) => socket.once("data", () => socket.end(Uint8Array.of(5))));
  await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
  const bound = server.address();
  const port = typeof bound === "object" ? (bound?.port ?? 0) : 0;
  const started = performance.now();
  const connected = connectThroughSocks({ host: "127.0.0.1", port }, { host: "x", port: 1, timeoutMs: 10_000 });
  await expect(connected).rejects.toThrow("ended");
  expect(performance.now() - started).toBeLessThan(5_000);
});
