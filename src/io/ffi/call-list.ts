// Several native calls by one: each way from JavaScript into native code costs as much as sealing 200 bytes, and a
// packet needs four or five. A list of calls in an arena is walked by 60 bytes of machine code in a page of their own,
// which is never writable and executable at once. 64-bit x86 Linux alone; elsewhere, and where a hardened system
// forbids such a page, calls go one by one.
import type { Arena } from "./arena.ts";
import { lastErrno, systemError } from "./errno.ts";
import { bindNative, hasLinuxLayouts, koffi, type NativeFunction } from "./koffi.ts";

const PROT_READ = 1;
const PROT_WRITE = 2;
const PROT_EXEC = 4;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const PAGE_BYTES = 4_096;
/** Of one call: its function and five arguments of 64 bits. */
const CALL_BYTES = 48;
const ARGUMENTS = 5;

// void run(call *list /* rdi */, size_t count /* rsi */), by the System V ABI:
const CODE = [
  ...[0xf3, 0x0f, 0x1e, 0xfa], //       endbr64
  ...[0x53, 0x55], //                   push rbx; push rbp
  ...[0x48, 0x83, 0xec, 0x08], //       sub rsp, 8           the stack is at a multiple of 16 at each call
  ...[0x48, 0x89, 0xfb], //             mov rbx, rdi
  ...[0x48, 0x89, 0xf5], //             mov rbp, rsi
  ...[0x48, 0x85, 0xed], // next:       test rbp, rbp
  ...[0x74, 0x1f], //                   jz end
  ...[0x48, 0x8b, 0x7b, 0x08], //       mov rdi, [rbx + 8]
  ...[0x48, 0x8b, 0x73, 0x10], //       mov rsi, [rbx + 16]
  ...[0x48, 0x8b, 0x53, 0x18], //       mov rdx, [rbx + 24]
  ...[0x48, 0x8b, 0x4b, 0x20], //       mov rcx, [rbx + 32]
  ...[0x4c, 0x8b, 0x43, 0x28], //       mov r8, [rbx + 40]
  ...[0xff, 0x13], //                   call [rbx]
  ...[0x48, 0x83, 0xc3, CALL_BYTES], // add rbx, 48
  ...[0x48, 0xff, 0xcd], //             dec rbp
  ...[0xeb, 0xdc], //                   jmp next
  ...[0x48, 0x83, 0xc4, 0x08], // end:  add rsp, 8
  ...[0x5d, 0x5b, 0xc3], //             pop rbp; pop rbx; ret
];

let runner: NativeFunction | undefined;

/** The page is never given back: whoever has a list may call it. Throws where there can be none. */
function makeRunner(arena: Arena): NativeFunction {
  if (!canListCalls()) throw new Error("lists of native calls are for Linux on 64-bit x86");
  const mmap = bindNative("mmap", "int64_t", "uintptr_t", "size_t", "int", "int", "int", "int64_t");
  const page = mmap(0, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  if (page === -1) throw systemError("mmap", lastErrno());
  const code = arena.allocate(CODE.length);
  code.set(CODE);
  bindNative("memcpy", "uintptr_t", "uintptr_t", "uintptr_t", "size_t")(page, arena.addressOf(code), CODE.length);
  if (bindNative("mprotect", "int", "uintptr_t", "size_t", "int")(page, PAGE_BYTES, PROT_READ | PROT_EXEC) !== 0) {
    throw systemError("mprotect", lastErrno());
  }
  const { proto, decode } = koffi();
  return decode(BigInt(page), proto("void", ["uintptr_t", "size_t"])) as NativeFunction;
}

/** Whether this machine's native code is what CODE is written in. */
export function canListCalls(): boolean {
  return hasLinuxLayouts() && process.arch === "x64";
}

/** What a list of so many calls takes of its arena, the code's own copy included. */
export function callListBytes(calls: number): number {
  return calls * CALL_BYTES + CODE.length + 2 * 64;
}

/**
 * A fixed number of calls in their order, whose arguments may change between two runs. Results are lost: only functions
 * that return nothing, or nothing that matters.
 *
 * @example
 * const list = new CallList(arena, 2);
 * list.set(0, "memset", [address, 0, 64]);
 * list.set(1, "memset", [address + 64, 1, 64]);
 * list.setArgument(1, 2, 128);
 * list.run();
 */
export class CallList {
  readonly #words: Uint32Array;
  readonly #firstWord: number;
  readonly #address: number;
  readonly #calls: number;
  readonly #run: NativeFunction;

  /** Throws where `canListCalls` is false or the system forbids it. */
  constructor(arena: Arena, calls: number) {
    runner ??= makeRunner(arena);
    this.#run = runner;
    const at = arena.allocateAt(calls * CALL_BYTES);
    this.#words = arena.words;
    this.#firstWord = at >>> 2;
    this.#address = arena.baseAddress + at;
    this.#calls = calls;
  }

  /** `name` as the process exports it; addresses and sizes as its arguments. Throws where there is no such function. */
  set(call: number, name: string, args: readonly number[]): void {
    const address = bindNative("dlsym", "uintptr_t", "uintptr_t", "str") as unknown as (
      at: number,
      of: string,
    ) => number;
    const found = address(0, name);
    if (found === 0) throw new Error(`${name} is not there`);
    this.#write(call, 0, found);
    for (let i = 0; i < ARGUMENTS; i++) this.#write(call, 1 + i, args[i] ?? 0);
  }

  setArgument(call: number, argument: number, value: number): void {
    this.#write(call, 1 + argument, value);
  }

  #write(call: number, place: number, value: number): void {
    const word = this.#firstWord + (call * CALL_BYTES) / 4 + 2 * place;
    this.#words[word] = value; // modulo 2^32, as every store into a Uint32Array
    this.#words[word + 1] = value / 0x1_0000_0000;
  }

  run(): void {
    this.#run(this.#address, this.#calls);
  }
}
