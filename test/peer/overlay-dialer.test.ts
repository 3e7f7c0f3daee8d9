import { expect, test } from "vitest";
import { formatEndpoint } from "../../src/base/address.ts";
import { SILENT_GATEWAY_MS } from "../../src/base/limits.ts";
import { type DenialNotice, DialError } from "../../src/peer/overlay.ts";
import { StackDialer } from "../../src/peer/overlay-dialer.ts";
import type { OverlaySocket } from "../../src/peer/overlay-socket.ts";
import { address, GW, GW_ADDRESS, netmapOf, STAGING_ADDRESS, until, World } from "./world.ts";

async function failure(dial: Promise<OverlaySocket>): Promise<DialError> {
  try {
    (await dial).destroy();
  } catch (error) {
    if (error instanceof DialError) return error;
    throw error;
  }
  throw new Error("it connected");
}

const opened = (world: World): string[] => world.stack.openings.map((opening) => formatEndpoint(opening.local));

test("service before node before host: route; service: and node: say which; an address goes as it is", async () => {
  const world = new World();
  const base = netmapOf();
  world.map = netmapOf({
    services: [...base.services, { ...base.services[0]!, name: "gw" }],
    hostRoutes: [{ pattern: "*", gateways: [GW] }],
  });
  const dialer = world.dialer();
  for (const [host, port] of [
    ["gw", 80],
    ["gw", 81],
    ["node:gw", 80],
    ["service:gw", 80],
    ["STAGING", 80],
    ["service:staging", 0],
    ["10.20.0.5", 443],
    ["fd00:17::6", 22],
  ] as const) {
    expect((await failure(dialer.dial({ host, port }))).kind).toBe("refused");
  }
  expect(opened(world)).toEqual([
    `[${STAGING_ADDRESS}]:80`,
    `[${GW_ADDRESS}]:81`, // not the service's port: the node of that name
    `[${GW_ADDRESS}]:80`,
    `[${STAGING_ADDRESS}]:80`,
    `[${STAGING_ADDRESS}]:80`,
    `[${STAGING_ADDRESS}]:80`,
    "10.20.0.5:443",
    `[${GW_ADDRESS}]:22`,
  ]);
});

test("an unknown name's error equals that of a name without a grant but for the id", async () => {
  const world = new World();
  world.allowed = () => false;
  const strip = (error: DialError, host: string) => ({
    ...error,
    message: error.message.replace(host, "X").replace(/d_\d+/, "ID"),
    denialId: undefined,
  });
  const known = strip(await failure(world.dialer().dial({ host: "gw", port: 1 })), "gw");
  const unknown = strip(await failure(world.dialer().dial({ host: "nobody", port: 1 })), "nobody");
  expect(known).toEqual(unknown);
  expect(unknown).toMatchObject({ kind: "denied", code: "EACCES", reason: "NO_GRANT", ruleId: undefined });
});

test("a discoverable service says what would allow it", async () => {
  const error = await failure(new World().dialer().dial({ host: "production", port: 80 }));
  expect(error).toMatchObject({ kind: "denied", reason: "NO_GRANT", hint: "ask the platform group" });
});

test("a name from a client is escaped where a person reads it", async () => {
  const error = await failure(new World().dialer().dial({ host: "a\x1b[2Jb\n", port: 80 }));
  expect(error.message).not.toContain("\x1b");
  expect(error.message).not.toContain("\n");
});

test("the next gateway is tried when one can't be reached, not when one refuses or denies", async () => {
  for (const [answer, tried] of [
    ["host", 2],
    ["prohibited", 1],
    ["refused", 1],
  ] as const) {
    const world = new World();
    const gateways = ["fd00:17::100", "fd00:17::101"].map((text) => ({ session: GW, address: text }));
    world.map = netmapOf({ services: [{ ...netmapOf().services[0]!, gateways }] });
    world.stack.onTcp = (opening) => (answer === "refused" ? opening.refuse(0) : opening.unreachable(0, answer));
    await failure(world.dialer().dial({ host: "staging", port: 80 }));
    expect(world.stack.openings, answer).toHaveLength(tried);
  }
});

test("a gateway that did not answer is tried last for a while, then first again", async () => {
  const world = new World();
  const gateways = ["fd00:17::100", "fd00:17::101"].map((text) => ({ session: GW, address: text }));
  world.map = netmapOf({ services: [{ ...netmapOf().services[0]!, gateways }] });
  world.stack.onTcp = (opening) =>
    formatEndpoint(opening.local).startsWith("[fd00:17::100]") ? opening.unreachable(0, "host") : opening.refuse(0);
  const dialer = world.dialer();
  const tried = async (): Promise<string[]> => {
    const before = world.stack.openings.length;
    await failure(dialer.dial({ host: "staging", port: 80 }));
    return opened(world).slice(before);
  };
  const [dead, live] = ["[fd00:17::100]:80", "[fd00:17::101]:80"];
  expect(await tried()).toEqual([dead, live]);
  expect(await tried()).toEqual([live]);
  world.turns.offsetMs += SILENT_GATEWAY_MS + 1;
  expect(await tried()).toEqual([dead, live]);
});

function notice(change: Partial<DenialNotice> = {}): DenialNotice {
  return {
    id: "d_remote0001",
    hop: "destination",
    destination: address(STAGING_ADDRESS),
    protocol: 6,
    destinationPort: 80,
    reason: "NEVER",
    ruleId: "never-1",
    ...change,
  };
}

test("the far end's denial gives the error its id, before or after the ICMP, or without it", async () => {
  for (const order of ["before", "after", "alone"] as const) {
    const world = new World();
    world.stack.onTcp = (opening) => {
      const tell = () => {
        for (const listener of [...world.listeners]) listener(notice());
      };
      if (order !== "after") tell();
      if (order !== "alone") opening.unreachable(0, "prohibited");
      if (order === "after") setTimeout(tell, 10);
    };
    const error = await failure(world.dialer().dial({ host: "staging", port: 80 }));
    expect(error, order).toMatchObject({
      kind: "denied",
      denialId: "d_remote0001",
      reason: "NEVER",
      ruleId: "never-1",
    });
    expect(world.listeners.size).toBe(0);
  }
});

test("a denial of something else is none of this dial's", async () => {
  const world = new World();
  world.stack.onTcp = (opening) => {
    for (const change of [{ destinationPort: 81 }, { protocol: 17 }, { destination: address("fd00:17::101") }]) {
      for (const listener of world.listeners) listener(notice(change));
    }
    setTimeout(() => opening.refuse(0), 5);
  };
  expect((await failure(world.dialer().dial({ host: "staging", port: 80 }))).kind).toBe("refused");
});

test("a dial ends by time or by its signal, and leaves nothing behind", async () => {
  const world = new World();
  world.stack.onTcp = () => undefined;
  expect((await failure(world.dialer(50).dial({ host: "staging", port: 80 }))).kind).toBe("timeout");
  const controller = new AbortController();
  const dial = failure(world.dialer().dial({ host: "staging", port: 80 }, controller.signal));
  await until(() => world.stack.openings.length === 2);
  controller.abort();
  expect((await dial).kind).toBe("aborted");
  expect((await failure(world.dialer().dial({ host: "staging", port: 80 }, controller.signal))).kind).toBe("aborted");
  await until(() => world.stack.connections.every((connection) => connection.closedBy !== undefined));
  expect(world.listeners.size).toBe(0);
});

test("a full connection table and a family without an own address are unreachable", async () => {
  const world = new World();
  world.stack.full = true;
  expect((await failure(world.dialer().dial({ host: "staging", port: 80 }))).kind).toBe("unreachable");
  world.stack.full = false;
  world.localAddressFor = () => undefined;
  expect((await failure(world.dialer().dial({ host: "staging", port: 80 }))).kind).toBe("unreachable");
});

test("an address that no stream can be opened to is unreachable at once", async () => {
  const world = new World();
  for (const host of ["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::", "ff02::1"]) {
    expect((await failure(world.dialer().dial({ host, port: 80 }))).kind).toBe("unreachable");
  }
  expect(opened(world)).toEqual([]);
});

test("a gateway that answers name-dial with nonsense, or half, or nothing, is unreachable or timed out", async () => {
  for (const [bytes, kind] of [
    [Uint8Array.of(9, 9, 9), "unreachable"],
    [Uint8Array.of(1, 0), "unreachable"],
    [Uint8Array.of(1, 6, 0), "unreachable"],
    [undefined, "timeout"],
  ] as const) {
    const world = new World();
    world.stack.onTcp = (opening) => {
      const connection = opening.accept(0, {
        readable: () => undefined,
        writable: () => undefined,
        closed: () => undefined,
      });
      if (bytes === undefined) return;
      connection.write(0, bytes);
      connection.end(0);
    };
    expect((await failure(world.dialer(100).dial({ host: "x.internal", port: 80 }))).kind).toBe(kind);
  }
});

test("without a netmap names go to the resolver of the file, or are denied when there is none", async () => {
  const world = new World();
  world.map = undefined;
  expect((await failure(world.dialer().dial({ host: "db.lan", port: 80 }))).kind).toBe("denied");
  const asked: string[] = [];
  const resolver = {
    resolve: async (name: string) => {
      asked.push(name);
      return name === "db.lan" ? [address("10.20.0.5")] : [];
    },
  };
  const dialer = new StackDialer({ view: world, stack: world.stack, turns: world.turns, resolver });
  expect((await failure(dialer.dial({ host: "DB.lan", port: 80 }))).kind).toBe("refused");
  expect((await failure(dialer.dial({ host: "no.lan", port: 80 }))).kind).toBe("unresolved");
  expect((await failure(dialer.dial({ host: "127.1", port: 80 }))).kind).toBe("denied");
  expect(asked).toEqual(["db.lan", "no.lan"]);
  expect(opened(world)).toEqual(["10.20.0.5:80"]);
});

test("UDP sockets are bound for what is allowed, denied for what isn't or isn't known", () => {
  const world = new World();
  const { socket, remote } = world.dialer().bindUdp({ host: "10.20.0.5", port: 53 });
  expect(formatEndpoint(remote)).toBe("10.20.0.5:53");
  socket.close();
  expect(() => world.dialer().bindUdp({ host: "nobody", port: 53 })).toThrow(DialError);
  world.allowed = () => false;
  expect(() => world.dialer().bindUdp({ host: "10.20.0.5", port: 53 })).toThrow(/NO_GRANT/);
});
