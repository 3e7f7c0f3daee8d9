// The resolver of `up --tun` asked over a real TUN device: by dig(1), and by the real systemd-resolved.
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { STAGING_ADDRESS } from "../peer/world.ts";
import { Program } from "../scripts/program.ts";
import { SystemdResolved } from "./systemd-resolved.ts";

const END = fileURLToPath(new URL("./resolver-end.ts", import.meta.url));
const V6 = "fd00:17::53";
const V4 = "10.99.0.0";

async function dig(namespace: Namespace, server: string, ...words: readonly string[]): Promise<string> {
  const args = ["+tries=1", "+time=5", "+nostats", `@${server}`, ...words];
  return (await namespace.run(requireTool("dig"), args, { check: false })).stdout;
}

const status = (text: string): string | undefined => /status: (\w+)/.exec(text)?.[1];
const flags = (text: string): string | undefined => /^;; flags: ([a-z ]*);/m.exec(text)?.[1];
const answers = (text: string): string[] =>
  text
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith(";"))
    .map((line) => line.split(/\s+/).slice(3).join(" "));

describe.runIf(needs("netns", "tun", "dig"))("the resolver over a TUN device, and dig", () => {
  test("names, addresses, refusals, EDNS, truncation and TCP are as dig takes them", async () => {
    await using lab = new Lab();
    const host = lab.namespace("host");
    const end = new Program("resolver-end", process.execPath, [END], { namespace: host });
    await end.event("ready", (row) => row["ready"]);

    for (const server of [V6, V4]) {
      const found = await dig(host, server, "staging.test.internal", "AAAA");
      expect(answers(found)).toEqual([`AAAA ${STAGING_ADDRESS}`]);
      expect(flags(found)).toBe("qr aa rd"); // no recursion
      expect(found).toContain("udp: 1232");
      expect(found).not.toMatch(/WARNING: (?!recursion requested but not available)|malformed/);
      const none = await dig(host, server, "nobody.test.internal", "A");
      expect([status(none), ...answers(none)]).toEqual([
        "NXDOMAIN",
        expect.stringMatching(/^SOA test.internal. nobody.invalid. \d+ 3600 600 86400 5$/),
      ]);
      expect(answers(await dig(host, server, "-x", "10.99.0.6"))).toEqual(["PTR gw.test.internal."]);
      expect(answers(await dig(host, server, "-x", "fd00:17::100"))).toEqual(["PTR staging.test.internal."]);
      expect(status(await dig(host, server, "example.com", "A"))).toBe("REFUSED");
      expect(answers(await dig(host, server, "GW.Test.Internal", "A"))).toEqual(["A 10.99.0.6"]);
    }

    // 100 addresses: too many for a datagram, so dig asks again by TCP; "+ignore" takes what comes first.
    const cut = await dig(host, V6, "many.test.internal", "AAAA", "+ignore");
    expect([flags(cut), ...answers(cut)]).toEqual(["qr aa tc rd"]);
    const whole = await dig(host, V6, "many.test.internal", "AAAA");
    expect(whole).toContain("Truncated, retrying in TCP mode");
    expect(answers(whole)).toHaveLength(100);
    expect(answers(await dig(host, V4, "many.test.internal", "AAAA", "+tcp"))).toHaveLength(100);

    expect(status(await dig(host, V6, "gw.test.internal", "A", "+edns=7", "+noednsneg"))).toBe("BADVERS");
    expect(status(await dig(host, V6, "gw.test.internal", "A", "+opcode=4"))).toBe("NOTIMP");
    expect(status(await dig(host, V6, "-c", "CH", "version.bind", "TXT"))).toBe("REFUSED");
    expect(await dig(host, V6, "test.internal", "AXFR")).toContain("Transfer failed");
    const two = await dig(host, V6, "+tcp", "+keepopen", "gw.test.internal", "A", "gw.test.internal", "AAAA");
    expect(answers(two)).toEqual(["A 10.99.0.6", "AAAA fd00:17::6"]);
  });
});

describe.runIf(needs("netns", "tun", "systemd-resolved", "resolvectl", "dbus-daemon", "unshare", "nsenter"))(
  "the resolver and systemd-resolved",
  () => {
    test("its names are asked of it alone, all others as before; the end and kill -9 take it out again", async () => {
      await using lab = new Lab();
      const host = lab.namespace("host");
      const resolved = await SystemdResolved.start(host);
      const before = (await resolved.resolvectl("status")).stdout;
      const query = async (name: string): Promise<string> => {
        const ran = await resolved.resolvectl("query", "--legend=no", "--cache=no", name);
        return ran.stdout.replace(/\s+/g, " ").trim();
      };
      const start = async (): Promise<Program> => {
        const argument = JSON.stringify({ journalFolder: "/run/wirebadge" });
        const end = resolved.program("resolver-end", process.execPath, [END, argument]);
        expect(await end.event("ready", (row) => (row["ready"] === true ? row : undefined))).toMatchObject({
          why: null,
        });
        return end;
      };

      const end = await start();
      expect(await query("staging.test.internal")).toContain(STAGING_ADDRESS);
      expect(await query("10.99.0.6")).toContain("gw.test.internal");
      expect((await query("many.test.internal")).match(/fd00:/g)).toHaveLength(100);
      expect((await resolved.resolvectl("query", "nobody.test.internal")).stderr).toContain("not found");
      expect(resolved.askedUpstream).toEqual([]);
      await query("example.com");
      expect(new Set(resolved.askedUpstream)).toEqual(new Set(["example.com"]));
      expect((await resolved.resolvectl("status", "wbnames0")).stdout).toContain("-DefaultRoute");

      end.child.stdin?.write("leave\n");
      await end.event("left", (row) => row["left"]);
      expect((await resolved.resolvectl("dns", "wbnames0")).stdout.trim()).toMatch(/\):$/);
      await query("staging.test.internal");
      expect(resolved.askedUpstream).toContain("staging.test.internal"); // as it would be without us
      end.child.kill("SIGKILL");
      await end.exited;

      const killed = await start();
      killed.child.kill("SIGKILL");
      await killed.exited;
      expect((await resolved.resolvectl("status")).stdout).toBe(before);
    });
  },
);
