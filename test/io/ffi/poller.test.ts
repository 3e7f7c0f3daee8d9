import { execFile } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { Arena } from "../../../src/io/ffi/arena.ts";
import { EventFd } from "../../../src/io/ffi/event-fd.ts";
import { bindNative } from "../../../src/io/ffi/koffi.ts";
import { POLLERR, POLLHUP, POLLIN, POLLNVAL, Poller } from "../../../src/io/ffi/poller.ts";
import { needs } from "../../needs.ts";

describe.runIf(needs("linux"))("poll(2)", () => {
  const arena = new Arena(65_536);
  const close = bindNative("close", "int", "int");

  function pipe(): [readEnd: number, writeEnd: number] {
    const at = arena.scratchAt;
    expect(bindNative("pipe2", "int", "uintptr_t", "int")(arena.baseAddress + at, 0x80800)).toBe(0);
    return [arena.words[at / 4]!, arena.words[at / 4 + 1]!];
  }

  it("gives 0 after the time it was given, and not before", () => {
    const event = EventFd.create();
    const poller = new Poller(arena, [event.fd]);
    const begunMs = performance.now();
    expect(poller.wait(60)).toBe(0);
    expect(performance.now() - begunMs).toBeGreaterThanOrEqual(59);
    expect(poller.events(0)).toBe(0);
    event.close();
  });

  it("tells which are ready, again and again", () => {
    const events = [EventFd.create(), EventFd.create(), EventFd.create()];
    const poller = new Poller(
      arena,
      events.map(({ fd }) => fd),
    );
    const look = (): number[] => [poller.wait(0), ...[0, 1, 2].map((i) => poller.events(i))];
    expect(look()).toEqual([0, 0, 0, 0]);
    events[1]!.signal();
    expect(look()).toEqual([1, 0, POLLIN, 0]);
    expect(look()).toEqual([1, 0, POLLIN, 0]); // until it is drained
    events[2]!.signal();
    events[1]!.drain();
    expect(look()).toEqual([1, 0, 0, POLLIN]);
    events[0]!.signal();
    expect(look()).toEqual([2, POLLIN, 0, POLLIN]);
    for (const event of events) event.drain();
    expect(look()).toEqual([0, 0, 0, 0]);
    for (const event of events) event.close();
  });

  it("tells of an end that is gone: POLLHUP to the reader, POLLERR to the writer", () => {
    const [readEnd, writeEnd] = pipe();
    const reading = new Poller(arena, [readEnd]);
    expect(reading.wait(0)).toBe(0);
    close(writeEnd);
    expect([reading.wait(0), reading.events(0)]).toEqual([1, POLLHUP]);
    close(readEnd);
    const [otherRead, otherWrite] = pipe();
    const writing = new Poller(arena, [otherWrite]);
    expect(writing.wait(0)).toBe(0);
    close(otherRead);
    expect([writing.wait(0), writing.events(0)]).toEqual([1, POLLERR]);
    close(otherWrite);
  });

  it("tells of a closed descriptor by POLLNVAL, and passes over a negative one", () => {
    const poller = new Poller(arena, [1_000_000, -1]);
    expect([poller.wait(0), poller.events(0), poller.events(1)]).toEqual([1, POLLNVAL, 0]);
    expect(() => poller.events(2)).toThrow("assertion");
  });

  it("is woken from another thread within milliseconds", async () => {
    const event = EventFd.create();
    const workerData = { fd: event.fd, timeoutMs: 20_000 };
    const worker = new Worker(new URL("./poll-worker.ts", import.meta.url), { workerData });
    expect(await once(worker, "message")).toEqual(["waiting"]);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const answer = once(worker, "message");
    event.signal();
    const [seen] = await answer;
    expect(seen).toMatchObject({ ready: 1, events: POLLIN, left: 0 });
    expect(seen.waitedMs).toBeLessThan(10_000); // far from the 20 s that it would wait else
    await once(worker, "exit");
    event.close();
  });

  async function child(command: string, ...args: readonly string[]): Promise<Record<string, unknown>> {
    const path = fileURLToPath(new URL("./poll-child.ts", import.meta.url));
    const shell = ["-c", command, process.execPath, path, ...args];
    return JSON.parse((await promisify(execFile)("sh", shell)).stdout);
  }

  it("ends at a signal as if nothing had come", async () => {
    const seen = await child('exec "$0" "$@"', "signal");
    expect(seen).toMatchObject({ before: [1, POLLIN], interrupted: [0, 0] });
    expect(seen["waitedMs"]).toBeLessThan(2_500);
  });

  it("throws, by name, what can't be asked", async () => {
    const seen = await child('ulimit -n 256; exec "$0" "$@"', "many", "257");
    expect(seen).toMatchObject({ code: "INTERNAL", message: expect.stringContaining("EINVAL") });
  });
});
