import { defineConfig } from "vitest/config";

const real = ["test/interop/**/*.test.ts", "test/hostile/**/*.test.ts", "test/scripts/**/*.test.ts"];

export default defineConfig({
  test: {
    projects: [
      {
        // Pure folders and in-process tests: `npm run check`. No sleeping, no real network beyond loopback.
        test: { name: "unit", include: ["test/**/*.test.ts"], exclude: real, testTimeout: 20_000 },
      },
      {
        // Real parts: processes of their own, network namespaces, other implementations.
        test: { name: "real", include: real, testTimeout: 240_000, hookTimeout: 60_000 },
      },
    ],
  },
});
