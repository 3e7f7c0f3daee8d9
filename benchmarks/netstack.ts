// Bulk TCP between two userspace stacks in one process, without crypto: both ends, and the copy between them, on one
// core.
import { parseAddress } from "../src/base/address.ts";
import { SeededRandom } from "../src/base/random.ts";
import type { TcpConnection } from "../src/netstack/contract.ts";
import { UserspaceStack } from "../src/netstack/stack.ts";
import type { BenchResult } from "./result.ts";

const MTU_BYTES = 1420;
const WRITE_BYTES = 64 * 1024;

/** Packets on their way, in slots that are used again. */
class Wire {
  readonly #slots: { bytes: Uint8Array; length: number }[] = [];
  #head = 0;
  #size = 0;

  push(buffer: Uint8Array, offset: number, length: number): void {
    if (this.#size === this.#slots.length) {
      this.#slots.splice(this.#head, 0, { bytes: new Uint8Array(2048), length: 0 });
      this.#head = (this.#head + 1) % this.#slots.length;
    }
    const slot = this.#slots[(this.#head + this.#size++) % this.#slots.length]!;
    slot.bytes.set(buffer.subarray(offset, offset + length));
    slot.length = length;
  }

  drain(nowMs: number, stack: UserspaceStack): boolean {
    const count = this.#size;
    for (let i = 0; i < count; i++) {
      const slot = this.#slots[this.#head]!;
      this.#head = (this.#head + 1) % this.#slots.length;
      this.#size--;
      stack.handlePacket(nowMs, slot.bytes, 0, slot.length);
    }
    return count > 0;
  }
}

/** CPU time of this thread: a busy machine makes a run longer, not the figure smaller. */
function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}

function transfer(addresses: readonly [string, string], totalBytes: number): number {
  const [from, to] = addresses.map((text) => parseAddress(text)!) as [never, never];
  const towardsServer = new Wire();
  const towardsClient = new Wire();
  const make = (seed: number, wire: Wire): UserspaceStack =>
    new UserspaceStack({
      random: new SeededRandom(seed),
      mtuBytes: MTU_BYTES,
      handler: { output: (_nowMs, buffer, offset, length) => wire.push(buffer, offset, length) },
    });
  const client = make(1, towardsServer);
  const server = make(2, towardsClient);
  client.setLocalAddresses([from]);
  server.setLocalAddresses([to]);
  let nowMs = 1_000;
  let receivedBytes = 0;
  server.listenTcp({ address: to, port: 80 }, (connection: TcpConnection) => {
    connection.handler = {
      readable: () => {
        if (connection.readableBytes < WRITE_BYTES && receivedBytes + connection.readableBytes < totalBytes) return;
        for (let bytes = connection.read(nowMs, WRITE_BYTES); bytes !== undefined; ) {
          receivedBytes += bytes.length;
          bytes = connection.read(nowMs, WRITE_BYTES);
        }
      },
      writable: () => undefined,
      closed: () => undefined,
    };
  });
  const chunk = new Uint8Array(WRITE_BYTES);
  let sentBytes = 0;
  const fill = (): void => {
    while (sentBytes < totalBytes) {
      const taken = connection.write(nowMs, chunk.subarray(0, Math.min(chunk.length, totalBytes - sentBytes)));
      sentBytes += taken;
      if (taken < chunk.length) return;
    }
  };
  const handler = { connected: fill, readable: () => undefined, writable: fill, closed: () => undefined };
  const connection = client.connectTcp(nowMs, from, { address: to, port: 80 }, handler)!;
  const startMs = cpuMs();
  while (receivedBytes < totalBytes) {
    const busy = towardsServer.drain(nowMs, server);
    if (towardsClient.drain(nowMs, client) || busy) {
      nowMs += 0.1;
      continue;
    }
    nowMs = Math.max(nowMs, Math.min(client.nextDeadlineMs(), server.nextDeadlineMs()));
    client.handleTimeout(nowMs);
    server.handleTimeout(nowMs);
  }
  return totalBytes / 1e6 / ((cpuMs() - startMs) / 1000);
}

export interface Options {
  readonly totalBytes?: number;
}

/** MB of payload per second of CPU, the better of two runs after one to warm up. */
export function run(options: Options = {}): BenchResult[] {
  const totalBytes = options.totalBytes ?? 256 * 1024 * 1024;
  const families = [
    ["IPv6", ["fd00::1", "fd00::2"]],
    ["IPv4", ["10.0.0.1", "10.0.0.2"]],
  ] as const;
  return families.map(([family, addresses]) => {
    transfer(addresses, totalBytes / 8);
    const value = Math.max(transfer(addresses, totalBytes), transfer(addresses, totalBytes));
    return { name: `netstack TCP over ${family}, both ends in one process`, value: Math.round(value), unit: "MB/s" };
  });
}
