// The way to the kernel is narrower behind the router than the stack can know: the router's own ICMP errors say so.
import { blocks, hashOf, hashOfBlocks, pair } from "./ends.ts";
import { type Family, ip, type World } from "./world.ts";

const NARROW_BYTES = 1_300;
const BYTES = 500_000;
/** Less than a sender that isn't told would take to give up. */
const PATIENCE_MS = 30_000;

async function poured(world: World, family: Family, opener: "kernel" | "stack", port: number): Promise<unknown> {
  const { socket, end } = await pair(world, family, opener, port);
  ip("-n", world.spec.router, "link", "set", "eth0", "mtu", String(NARROW_BYTES));
  const startedMs = performance.now();
  end.pour(blocks(BYTES, port));
  const whole = (await hashOf(socket)) === hashOfBlocks(BYTES, port);
  const inTime = performance.now() - startedMs < PATIENCE_MS;
  socket.end();
  await end.ended.promise;
  return { whole, inTime, closed: await end.gone.promise };
}

export const narrow = {
  together: {
    "narrow v4, kernel opens": (world: World) => poured(world, "v4", "kernel", 7_400),
    "narrow v4, stack opens": (world: World) => poured(world, "v4", "stack", 7_410),
    "narrow v6, kernel opens": (world: World) => poured(world, "v6", "kernel", 7_420),
    "narrow v6, stack opens": (world: World) => poured(world, "v6", "stack", 7_430),
  },
};
