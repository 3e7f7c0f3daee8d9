// What a server of the SDK does with a connection before the program hears of it, and what keeps a process alive.
import { once } from "node:events";
import type { Socket } from "node:net";
import { expect, test } from "vitest";
import type { Endpoint } from "../../src/base/address.ts";
import type { TcpConnection } from "../../src/netstack/contract.ts";
import { LoopHold } from "../../src/sdk/loop-hold.ts";
import { OverlayServer, type ServerPlace } from "../../src/sdk/overlay-server.ts";
import { fakePair, TestTurns } from "../peer/fake-stack.ts";
import { address, until } from "../peer/world.ts";

const OWN = address("fd00::b");
const CALLER = { address: address("fd00::a"), port: 40_000 };

/** A server, and what connects to it. */
function opened(accepted: boolean, hold = new LoopHold()) {
  const turns = new TestTurns();
  const listeners: ((connection: TcpConnection) => void)[] = [];
  const stack = {
    listenTcp: (_local: Endpoint, onConnection: (connection: TcpConnection) => void) =>
      listeners.push(onConnection) > 0,
    unlistenTcp: () => undefined,
  };
  const inside = { stack, turns, views: { ownAddresses: () => [OWN] } } as unknown as ServerPlace["inside"];
  const sockets: Socket[] = [];
  const server = new OverlayServer({ inside, hold, accepted: () => accepted }, { port: 80 }, (socket) => {
    sockets.push(socket);
  });
  const connect = () => {
    const [client, far] = fakePair(turns, CALLER, { address: OWN, port: 80 });
    turns.turn(() => listeners[0]!(far));
    return client;
  };
  return { server, sockets, connect };
}

test("a caller that nobody knows gets no socket: it is reset before the program hears of it", async () => {
  const { server, sockets, connect } = opened(false);
  await once(server, "listening");
  const client = connect();
  await until(() => client.closedBy === "reset");
  expect(sockets).toEqual([]);
  server.close();
});

test("a connection that comes with the server's end is closed, not handed on", async () => {
  const { server, sockets, connect } = opened(true);
  await once(server, "listening");
  const client = connect();
  server.close();
  await until(() => client.remoteEnded || client.closedBy !== undefined);
  expect(sockets).toEqual([]);
});

test("what is open holds the process, what is unref'd or closed does not", async () => {
  const held: number[] = [];
  const hold = new (class extends LoopHold {
    override hold(): void {
      super.hold();
      held.push(1);
    }
    override release(): void {
      super.release();
      held.push(-1);
    }
  })();
  const sum = (): number => held.reduce((all, each) => all + each, 0);
  const { server, sockets, connect } = opened(true, hold);
  await once(server, "listening");
  expect(sum()).toBe(1);
  connect();
  await until(() => sockets.length === 1);
  expect(sum()).toBe(2);
  sockets[0]!.unref();
  server.unref();
  expect(sum()).toBe(0);
  server.ref();
  sockets[0]!.ref();
  sockets[0]!.destroy();
  server.close();
  await once(server, "close");
  expect(sum()).toBe(0);
});
