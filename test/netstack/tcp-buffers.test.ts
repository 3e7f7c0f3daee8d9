import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ReceiveBuffer } from "../../src/netstack/tcp/receive-buffer.ts";
import { ReceiveMemory, Receiver } from "../../src/netstack/tcp/receiver.ts";
import { Segment } from "../../src/netstack/tcp/segment.ts";
import { CHUNK_BYTES, ChunkPool, SendBuffer } from "../../src/netstack/tcp/send-buffer.ts";
import { plainSums } from "../../src/wire/sums.ts";
import { TcpOptions } from "../../src/wire/tcp.ts";
import { pattern } from "./virtual-link.ts";

describe("the send buffer", () => {
  it("equals a plain array under any appends, copies and releases", () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant("append"), size: fc.nat(40_000) }),
      fc.record({ kind: fc.constant("release"), size: fc.nat(40_000) }),
      fc.record({ kind: fc.constant("copy"), size: fc.nat(3_000) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const pool = new ChunkPool(2, 100);
        const buffer = new SendBuffer(pool, 100_000);
        let plain = new Uint8Array(0);
        for (const [index, { kind, size }] of steps.entries()) {
          if (kind === "append") {
            const bytes = pattern(size, index);
            const taken = buffer.append(bytes);
            expect(taken).toBe(Math.min(size, 100_000 - plain.length));
            plain = new Uint8Array([...plain, ...bytes.subarray(0, taken)]);
          } else if (kind === "release") {
            const gone = Math.min(size, plain.length);
            buffer.release(gone);
            plain = plain.slice(gone);
          } else {
            const from = Math.floor((plain.length * (size % 97)) / 97);
            const out = new Uint8Array(Math.min(size, plain.length - from) + 2);
            buffer.copy(from, out.length - 2, out, 1);
            expect(Buffer.compare(out.subarray(1, -1), plain.subarray(from, from + out.length - 2))).toBe(0);
          }
          expect(buffer.sizeBytes).toBe(plain.length);
          expect(pool.inUse).toBeLessThanOrEqual(Math.ceil(plain.length / CHUNK_BYTES) + 1);
        }
        buffer.clear();
        expect(pool.inUse).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  it("takes no more than the pool of all connections has, and goes on when another gives back", () => {
    const pool = new ChunkPool(10, 2);
    const first = new SendBuffer(pool, 1 << 20);
    const second = new SendBuffer(pool, 1 << 20);
    expect(first.append(pattern(3 * CHUNK_BYTES))).toBe(2 * CHUNK_BYTES);
    expect(second.append(pattern(2 * CHUNK_BYTES))).toBe(CHUNK_BYTES); // its first, none more
    first.release(2 * CHUNK_BYTES);
    expect(second.append(pattern(5))).toBe(5);
  });
});

describe("a send buffer that grows", () => {
  it("has room for whole bytes, up to its bound, and not while others need the memory", () => {
    const pool = new ChunkPool(2, 8);
    const buffer = new SendBuffer(pool, 10_000, 60_000);
    buffer.grow(20_000.7); // a congestion window is no whole number
    expect([buffer.roomBytes, buffer.append(pattern(30_000))]).toEqual([20_000, 20_000]);
    buffer.grow(1_000);
    expect(buffer.roomBytes).toBe(0);
    buffer.grow(1e9);
    expect(buffer.roomBytes).toBe(40_000);
    const other = new SendBuffer(pool, 10_000, 60_000);
    while (!pool.isShort) pool.take(false);
    other.grow(20_000);
    expect(other.roomBytes).toBe(10_000);
  });
});

describe("the receive buffer", () => {
  it("puts any pieces of a stream together, whatever their order and overlap", () => {
    const piece = fc.record({ from: fc.nat(199), length: fc.integer({ min: 1, max: 60 }) });
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 40 }),
        fc.oneof(fc.nat(0xffff_ffff), fc.constant(0xffff_ff80)),
        (pieces, start) => {
          const stream = pattern(260);
          const buffer = new ReceiveBuffer(1_000, 1_000);
          const known = new Uint8Array(260);
          let next = 0;
          for (const { from, length } of pieces) {
            if (from + length <= next) continue;
            const cut = Math.max(from, next);
            const sequence = (start + cut) >>> 0;
            const isNext = cut === next;
            known.fill(1, cut, from + length);
            while (known[next] === 1) next++;
            if (isNext) {
              expect(buffer.appendNext(sequence, stream, cut, from + length - cut)).toBe((start + next) >>> 0);
            } else {
              expect(buffer.early.insert(sequence, stream, cut, from + length - cut)).toBe(true);
            }
            expect(buffer.early.bytes).toBe(known.reduce((sum, one) => sum + one, 0) - next);
          }
          const out: number[] = [];
          for (let part = buffer.read(17); part !== undefined; part = buffer.read(17)) out.push(...part);
          expect(out).toEqual([...stream.subarray(0, next)]);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("hands out parts that later bytes never touch", () => {
    const buffer = new ReceiveBuffer(10, 10);
    const stream = pattern(300_000);
    const parts: Uint8Array[] = [];
    let at = 0;
    let read = 0;
    for (let i = 0; at < stream.length; i++) {
      const size = Math.min(1 + ((i * 7919) % 3000), stream.length - at);
      buffer.append(stream, at, size);
      at += size;
      if (i % 3 === 0) {
        const part = buffer.read(1 + ((i * 104_729) % 5000))!;
        parts.push(part);
        read += part.length;
        expect(buffer.readableBytes).toBe(at - read);
      }
    }
    for (let part = buffer.read(1 << 20); part !== undefined; part = buffer.read(1 << 20)) parts.push(part);
    expect(Buffer.compare(Buffer.concat(parts), stream)).toBe(0);
  });

  it("drops segments, as if lost, when all connections together hold their memory", () => {
    const drops: string[] = [];
    const memory = new ReceiveMemory(20_000);
    memory.usedBytes = 10_000; // by others
    const receiver = new Receiver({
      memory,
      count: (what) => drops.push(what),
      bufferBytes: 100_000,
      bufferMaxBytes: 100_000,
      ownMssBytes: 1380,
    });
    receiver.start(99, new TcpOptions());
    const segment = new Segment(plainSums.sum);
    segment.buffer = pattern(8_192);
    segment.dataBytes = 8_192;
    for (let i = 0; i < 3; i++) {
      segment.sequence = receiver.next;
      receiver.handleData(0, segment, -1);
    }
    expect(drops).toEqual(["TCP_RECEIVE_MEMORY_FULL"]); // the third: two are the share that each connection has
    expect([receiver.next, memory.usedBytes]).toEqual([100 + 16_384, 26_384]);
    receiver.read(0, 8_192);
    receiver.handleData(0, segment, -1);
    expect(receiver.next).toBe(100 + 24_576);
    receiver.clear();
    expect(memory.usedBytes).toBe(10_000);
  });
});
