// The userspace stack against the TCP/IP of the real Linux kernel, over a TUN device in a namespace of its own.
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { Lab } from "../namespaces.ts";
import { needs } from "../needs.ts";

const PROCESS = fileURLToPath(new URL("./netstack-tun.ts", import.meta.url));

describe.runIf(needs("netns", "tun", "nft", "ping"))("the userspace stack and the Linux kernel", () => {
  let out: Record<string, unknown> = {};

  beforeAll(async () => {
    await using lab = new Lab();
    const namespace = lab.namespace("tun");
    const run = await namespace.run(process.execPath, [PROCESS, "loss"], { timeoutMs: 200_000 });
    out = JSON.parse(run.stdout) as Record<string, unknown>;
  }, 220_000);

  it.each(["v4", "v6"])("carry 24 MB both ways at once, byte for byte, whoever opens, over %s", (family) => {
    expect(out[`bulk from kernel ${family}`]).toEqual([out["expected"], out["expected"]]);
    expect(out[`bulk from stack ${family}`]).toEqual([out["expected"], out["expected"], "closed"]);
  });

  it("carry every byte at 2 % loss in both directions", () => {
    expect(out["nft"]).toBe("");
    expect(out["lossy from kernel"]).toEqual([out["expected lossy"], out["expected lossy"]]);
    expect(out["lossy from stack"]).toEqual([out["expected lossy"], out["expected lossy"], "closed"]);
    const rules = String(out["lossy rules"]); // what the kernel says that it dropped, each way
    expect(rules.match(/counter packets [1-9]/g), rules).toHaveLength(2);
    expect(out["counters"]).toMatchObject({ TCP_RETRANSMISSIONS: expect.any(Number) });
  });

  it.each(["v4", "v6"])("answer after the other's end, over %s", (family) => {
    expect(out[`half-close ${family}`]).toBe("after the end");
  });

  it.each(["v4", "v6"])("refuse each other's connections, over %s", (family) => {
    expect(out[`refused by stack ${family}`]).toBe("ECONNREFUSED");
    expect(out[`refused by kernel ${family}`]).toBe("refused");
    expect(out[`opening refused ${family}`]).toBe("ECONNREFUSED");
  });

  it("tell a kernel's socket by ICMP why a connection was not opened", () => {
    expect(out["opening prohibited v4"]).toBe("EHOSTUNREACH");
    expect(out["opening prohibited v6"]).toBe("EACCES");
    expect(out["opening unreachable v4"]).toBe("EHOSTUNREACH");
    expect(out["opening unreachable v6"]).toBe("EHOSTUNREACH");
  });

  it("reset each other's connections", () => {
    expect(out["resets"]).toEqual(["ECONNRESET", "reset"]);
  });

  it.each(["v4", "v6"])("exchange datagrams, in fragments when large, over %s", (family) => {
    expect(out[`udp ${family}`]).toEqual([0, 1, 1300, 5_000, 60_000]);
  });

  it("say that nobody listens on a UDP port", () => expect(out["udp refused"]).toBe("ECONNREFUSED"));

  it.each(["v4", "v6"])("ping each other, over %s", (family) => expect(out[`ping ${family}`]).toEqual([true, true]));
});
