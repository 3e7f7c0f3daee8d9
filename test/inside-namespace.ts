// Runs a function inside a network namespace, in this process: what it opens (a TUN device, a socket) belongs to that
// namespace for good, while the rest of the process stays where it was. Needs `needs("netns")`.
import { closeSync, openSync } from "node:fs";
import { assert } from "../src/base/assert.ts";
import { bindNative, type NativeFunction } from "../src/io/ffi/koffi.ts";
import type { Namespace } from "./namespaces.ts";

const CLONE_NEWNET = 0x40000000;

let setns: NativeFunction | undefined;

/** Nothing that waits: setns(2) moves this thread alone, and everything that runs on it. */
export function inNamespace<T>(namespace: Namespace, run: () => T): T {
  setns ??= bindNative("setns", "int", "int", "int");
  const own = openSync("/proc/thread-self/ns/net", "r");
  const other = openSync(`/run/netns/${namespace.name}`, "r");
  try {
    if (setns(other, CLONE_NEWNET) !== 0) throw new Error(`can't enter ${namespace.name}`);
    return run();
  } finally {
    assert(setns(own, CLONE_NEWNET) === 0, "this thread comes back from a network namespace");
    closeSync(own);
    closeSync(other);
  }
}
