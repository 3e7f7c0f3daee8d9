import { defineConfig } from "vitest/config";

// The others: each is a network of its own that mostly waits for its processes.
const realtime = [
  "test/realtime/**/*.test.ts",
  "test/interop/tun-{uapi,up,up-*,wg}.test.ts",
  "test/scripts/{badges,coordinator-kill,peer-kill-series,quickstart,restore}.test.ts",
];
const long = ["test/long/**/*.test.ts"];
const real = [
  "test/interop/**/*.test.ts",
  "test/hostile/**/*.test.ts",
  "test/scripts/**/*.test.ts",
  "test/sdk/{examples,register}.test.ts",
  "test/engine/steady-path.test.ts", // in a process of its own: what other tests gave a field decides how V8 keeps it
];

// In-process too, but each takes seconds: in `npm test`, not in `npm run check`.
const slow = [
  "test/fuzz/**/*.test.ts",
  "test/sdk/{http,join,libraries,sockets,udp}.test.ts",
  "test/others/**/*.test.ts",
  "test/sim/{plants,tools}.test.ts",
  "test/wireguard/handshake-flood.test.ts",
  "test/policy/hostile-packets.test.ts",
  "test/coordinator/{deltas,old-copy,policy}.test.ts",
  "test/cli/peer-commands.test.ts",
  "test/peer/{packet-loop,tun/host-dns,tun/uapi-codec}.test.ts",
  "test/policy/document.test.ts",
  "test/wire/{merge,split}-twin.test.ts",
];
const threads = {
  testTimeout: 60_000,
  pool: "threads",
  isolate: false,
  maxWorkers: 2,
  sequence: { groupOrder: 0 },
} as const;

export default defineConfig({
  test: {
    projects: [
      {
        // Pure folders and in-process tests: `npm run check`. No sleeping, no real network beyond loopback. They share
        // no state but modules, so that a worker loads those once.
        test: {
          name: "unit",
          include: ["test/**/*.test.ts"],
          exclude: [...real, ...realtime, ...long, ...slow],
          ...threads,
        },
      },
      { test: { name: "slow", include: slow, ...threads } },
      {
        // Real parts: processes of their own, network namespaces, other implementations. One file at a time.
        test: {
          name: "real",
          include: real,
          exclude: realtime,
          testTimeout: 240_000,
          hookTimeout: 60_000,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
      {
        // Real parts too, for which `npm test` has no time: `npm run proof`, one file at a time.
        test: {
          name: "long",
          include: long,
          testTimeout: 600_000,
          hookTimeout: 600_000,
          maxWorkers: 1,
          sequence: { groupOrder: 3 },
        },
      },
      {
        // Real parts that mostly wait for real time to pass (rekeys): side by side, each in namespaces of its own.
        // `npm test` runs them beside all the others.
        test: {
          name: "realtime",
          include: realtime,
          testTimeout: 600_000,
          hookTimeout: 600_000,
          maxWorkers: 4,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
