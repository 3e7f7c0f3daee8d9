// The one door to native functions. koffi is loaded at first use and not by an import statement: where its prebuilt
// library is missing everything else must still run (portable crypto, dgram).
import { createRequire } from "node:module";
import { endianness } from "node:os";
import { WirebadgeError } from "../../base/errors.ts";

type Koffi = typeof import("koffi");

let loaded: Koffi | undefined;

/** @throws WirebadgeError NATIVE_UNAVAILABLE; callers that can do without take it for the reason why they do */
export function koffi(): Koffi {
  loaded ??= load();
  return loaded;
}

function load(): Koffi {
  try {
    return createRequire(import.meta.url)("koffi") as Koffi;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.split("\n")[0] : String(cause);
    const message = `system calls can't be made here, koffi's library is not to be had: ${why}`;
    const hint = "install Wirebadge again on this machine, or leave out what needs it: --tun and --require native";
    throw new WirebadgeError("NATIVE_UNAVAILABLE", message, { hint, cause });
  }
}

/** Numbers only, addresses among them: they cost half of what Buffers would. */
export type NativeFunction = (...args: number[]) => number;

/** A function of the process itself: a library of the same name elsewhere would bind to Node's symbols and crash. */
export function bindNative(name: string, result: string, ...types: readonly string[]): NativeFunction {
  return koffi()
    .load(null)
    .func(name, result, [...types]) as unknown as NativeFunction;
}

/**
 * Whether the structures of the kernel lie in memory as this folder writes them: 64-bit little-endian Linux. glibc and
 * musl agree there, as long as padding is zero.
 */
export function hasLinuxLayouts(): boolean {
  return process.platform === "linux" && endianness() === "LE" && ["x64", "arm64"].includes(process.arch);
}
