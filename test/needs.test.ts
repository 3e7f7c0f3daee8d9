// A need that is not met is said once, in one line, with the file and the way to get it.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { needs, needsIn, toolPath } from "./needs.ts";

describe("needs", () => {
  const folder = mkdtempSync(join(tmpdir(), "wirebadge-needs-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  const program = (name: string): string => {
    writeFileSync(join(folder, name), "#!/bin/sh\n");
    chmodSync(join(folder, name), 0o755);
    return join(folder, name);
  };

  it("finds a program on the PATH, wireguard-go by both its names and by WIREGUARD_GO", () => {
    expect(toolPath("wireguard-go", { PATH: folder })).toBeUndefined();
    const path = program("wireguard");
    expect(toolPath("wireguard-go", { PATH: folder })).toBe(path);
    expect(toolPath("wireguard-go", { PATH: "/nowhere", WIREGUARD_GO: path })).toBe(path);
    expect(toolPath("wireguard-go", { PATH: folder, WIREGUARD_GO: "/nowhere/wireguard" })).toBeUndefined();
    expect(toolPath("npm", { PATH: folder })).toBeUndefined();
  });

  it("takes any program from the variable of its name", () => {
    const path = program("boringtun-cli");
    expect(toolPath("boringtun-cli", { PATH: "/nowhere", BORINGTUN_CLI: path })).toBe(path);
    expect(toolPath("boringtun-cli", { PATH: folder, BORINGTUN_CLI: "/nowhere/b" })).toBeUndefined();
  });

  it("is false with one line for all that is missing, said once", () => {
    const lines: string[] = [];
    const ask = () => needsIn({ PATH: "" }, (line) => lines.push(line), "test/x.test.ts", ["npm", "tshark"]);
    expect([ask(), ask()]).toEqual([false, false]);
    expect(lines).toEqual([
      "NEEDS test/x.test.ts: npm, tshark missing (install: install Node with npm; apt-get install tshark)\n",
    ]);
  });

  it("is true and silent when nothing is missing", () => {
    program("npm");
    const lines: string[] = [];
    expect(needsIn({ PATH: folder }, (line) => lines.push(line), "test/x.test.ts", ["npm"])).toBe(true);
    expect(needs()).toBe(true);
    expect(lines).toEqual([]);
  });
});
