import { defineConfig } from "vitest/config";

const realtime = ["test/realtime/**/*.test.ts"];
const real = ["test/interop/**/*.test.ts", "test/hostile/**/*.test.ts", "test/scripts/**/*.test.ts"];

export default defineConfig({
  test: {
    projects: [
      {
        // Pure folders and in-process tests: `npm run check`. No sleeping, no real network beyond loopback. They share
        // no state but modules, so that a worker loads those once.
        test: {
          name: "unit",
          include: ["test/**/*.test.ts"],
          exclude: [...real, ...realtime],
          testTimeout: 60_000,
          pool: "threads",
          isolate: false,
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        // Real parts: processes of their own, network namespaces, other implementations. One file at a time.
        test: {
          name: "real",
          include: real,
          testTimeout: 240_000,
          hookTimeout: 60_000,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
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
