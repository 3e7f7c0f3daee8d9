// What `npm run proof` runs in its long form, in this order, one after the other.

export interface ProofItem {
  readonly title: string;
  /** Test files, run by vitest with WIREBADGE_LONG=1, or a command. */
  readonly run: { readonly files: readonly string[] } | { readonly command: readonly string[] };
}

export const PROOF_ITEMS: readonly ProofItem[] = [
  {
    title: "kill -9 of coordinator and peers",
    run: { files: ["test/scripts/coordinator-kill.test.ts", "test/scripts/peer-kill-series.test.ts"] },
  },
  { title: "interop over rekeys", run: { files: ["test/realtime/interop-matrix.test.ts"] } },
  {
    title: "interop: cookies, roaming, NAT, changes, sizes, nesting",
    run: {
      files: ["cookies", "roaming", "nat-keepalive", "changes", "packet-sizes", "nested"].map(
        (name) => `test/realtime/${name}.test.ts`,
      ),
    },
  },
  {
    title: "wg --tun: faults, kills, floods, netns semantics, full rate",
    run: {
      files: [
        ...["tun-faults", "tun-kill", "tun-flood", "tun-netns"].map((name) => `test/long/${name}.test.ts`),
        "test/interop/tun-wg.test.ts",
      ],
    },
  },
  { title: "handshake flood", run: { files: ["test/hostile/handshake-flood.test.ts"] } },
  {
    title: "TCP with Linux",
    run: {
      files: ["test/interop/tcp-linux.test.ts", "test/interop/tcp-edges.test.ts", "test/interop/tcp-goodput.test.ts"],
    },
  },
  {
    title: "faults of the machine, backup and restore",
    run: { files: ["test/scripts/faults.test.ts", "test/scripts/restore.test.ts"] },
  },
  { title: "mutants: each guard taken out", run: { command: ["node", "test/mutants/main.ts"] } },
  {
    title: "fast paths against their plain twins",
    run: {
      files: [
        ...["split-twin", "merge-twin"].map((name) => `test/wire/${name}.test.ts`),
        ...["simd-sums", "simd-chacha20-poly1305", "ffi/call-list"].map((name) => `test/io/${name}.test.ts`),
      ],
    },
  },
  { title: "simulator, 10,000 seeds", run: { command: ["node", "test/sim/many-seeds.ts"] } },
  { title: "fuzz", run: { command: ["npm", "run", "fuzz", "--", "--long"] } },
  { title: "soak, 10 minutes", run: { files: ["test/realtime/soak.test.ts", "test/realtime/tun-soak.test.ts"] } },
];
