// The part of WebAssembly that this project uses, typed. It belongs to the engine itself, not to the DOM whose types
// this project leaves out.

export interface WasmMemory {
  readonly buffer: ArrayBuffer;
}

interface WasmModule {
  readonly [Symbol.toStringTag]: string;
}

interface WebAssemblyOfEngine {
  readonly Memory: new (limits: { initial: number; maximum: number }) => WasmMemory;
  /** Compiles; throws a CompileError on what this engine or processor has not. */
  readonly Module: new (
    bytes: Uint8Array,
  ) => WasmModule;
  readonly Instance: new (
    module: WasmModule,
    imports: Readonly<Record<string, Readonly<Record<string, WasmMemory>>>>,
  ) => { readonly exports: Readonly<Record<string, (...numbers: number[]) => number>> };
}

export const webAssembly = (globalThis as unknown as { readonly WebAssembly: WebAssemblyOfEngine }).WebAssembly;
