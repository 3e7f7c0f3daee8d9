// Who is called, and when no longer: a descriptor may be another file's as soon as it is closed. libuv's part is a
// stand-in, so that the order of events is the test's; test/interop/udp-port.test.ts has the real one.
import { expect, test } from "vitest";
import { Readiness } from "../../../src/io/ffi/readiness.ts";

const FAILED = -9;

function scene(answer: () => boolean = () => true) {
  const calls: string[] = [];
  let told: (status: number) => void = () => undefined;
  const readiness = new Readiness(
    77,
    () => {
      calls.push("read");
      return answer();
    },
    (fd, onEvent) => {
      calls.push(`poll ${fd}`);
      told = onEvent;
      return {
        start: (again) => {
          calls.push("start");
          told = again;
        },
        stop: () => calls.push("stop"),
        unref: () => calls.push("unref"),
        close: () => calls.push("close"),
      };
    },
  );
  return { readiness, calls, tell: (status = 0) => told(status) };
}

const round = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const rest = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 30));

test("one call a round, after the event and not in it, however often that is told", async () => {
  const { calls, tell } = scene();
  tell();
  tell();
  expect(calls).toEqual(["poll 77"]);
  await round();
  expect(calls).toEqual(["poll 77", "read"]);
  tell();
  await round();
  await rest();
  expect(calls).toEqual(["poll 77", "read", "read"]);
});

test("nothing is called once closed, nor closed twice", async () => {
  const { readiness, calls, tell } = scene();
  tell();
  readiness.close();
  readiness.close();
  tell();
  tell(FAILED);
  await round();
  await rest();
  expect(calls).toEqual(["poll 77", "close"]);
});

test("closed by what it calls, which then failed, it waits for nothing more", async () => {
  const { readiness, calls, tell } = scene(() => {
    readiness.close();
    return false;
  });
  tell();
  await round();
  await rest();
  expect(calls).toEqual(["poll 77", "read", "close"]);
});

test("where reading fails it rests, and waits again; the next failure has a rest of its own", async () => {
  const answers = [false, false, true];
  const { calls, tell } = scene(() => answers.shift()!);
  for (const _failure of [1, 2]) {
    tell();
    await round();
    expect(calls.slice(-2)).toEqual(["read", "stop"]);
    await round();
    expect(calls.slice(-1)).toEqual(["stop"]);
    await rest();
    expect(calls.slice(-1)).toEqual(["start"]);
  }
  tell();
  await round();
  await rest();
  expect(calls).toEqual(["poll 77", "read", "stop", "start", "read", "stop", "start", "read"]);
});

test("where waiting fails what is pending is read, and it rests once", async () => {
  const { calls, tell } = scene(() => false);
  tell(FAILED);
  await round();
  expect(calls).toEqual(["poll 77", "stop", "read"]);
  await rest();
  expect(calls).toEqual(["poll 77", "stop", "read", "start"]);
});

test("closed while it rests it waits no more", async () => {
  const { readiness, calls, tell } = scene(() => false);
  tell();
  await round();
  readiness.close();
  await rest();
  expect(calls).toEqual(["poll 77", "read", "stop", "close"]);
});

test("it keeps the process alive until it is told not to, and asks nothing of what is closed", () => {
  const { readiness, calls } = scene();
  readiness.unref();
  readiness.close();
  readiness.unref();
  expect(calls).toEqual(["poll 77", "unref", "close"]);
});
