// A flow that the filter ended: its connection is gone at once, silently, and its owner is told why.
import { expect, test } from "vitest";
import { parseAddress } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import type { TcpCloseReason, TcpConnection } from "../../src/netstack/contract.ts";
import { UserspaceStack } from "../../src/netstack/stack.ts";

const HERE = parseAddress("fd00::1")!;
const THERE = parseAddress("fd00::2")!;

function stack(address: typeof HERE, seed: number, output: (packet: Uint8Array) => void): UserspaceStack {
  const made = new UserspaceStack({
    random: new SeededRandom(seed),
    mtuBytes: 1420,
    handler: { output: (_nowMs, buffer, offset, length) => output(buffer.slice(offset, offset + length)) },
  });
  made.setLocalAddresses([address]);
  return made;
}

test("a cut connection closes as prohibited, sends nothing, and only that one", () => {
  const toThere: Uint8Array[] = [];
  const toHere: Uint8Array[] = [];
  const here = stack(HERE, 1, (packet) => toThere.push(packet));
  const there = stack(THERE, 2, (packet) => toHere.push(packet));
  const exchange = (): void => {
    while (toThere.length + toHere.length > 0) {
      for (const packet of toThere.splice(0)) there.handlePacket(0, packet, 0, packet.length);
      for (const packet of toHere.splice(0)) here.handlePacket(0, packet, 0, packet.length);
    }
  };
  there.listenTcp({ address: THERE, port: 80 }, () => undefined);
  const reasons: TcpCloseReason[][] = [[], []];
  const open = (index: number): TcpConnection =>
    here.connectTcp(
      0,
      HERE,
      { address: THERE, port: 80 },
      {
        readable: () => undefined,
        writable: () => undefined,
        closed: (reason) => reasons[index]!.push(reason),
      },
    )!;
  const [first, second] = [open(0), open(1)];
  exchange();
  expect(here.cutTcp(first.local, first.remote)).toBe(true);
  expect(toThere).toEqual([]);
  expect(reasons).toEqual([["prohibited"], []]);
  expect(here.cutTcp(first.local, first.remote)).toBe(false);
  second.write(0, new Uint8Array(10));
  exchange();
  expect(reasons[1]).toEqual([]);
});
