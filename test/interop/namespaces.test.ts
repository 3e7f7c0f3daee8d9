// The ground of the tests over real networks: namespaces that are really apart, NAT that really hides, and nothing left
// behind.
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { Lab, namespacesOfThisProcess } from "../namespaces.ts";
import { needs } from "../needs.ts";

const listenUdp = `
  const socket = require("node:dgram").createSocket("udp4");
  socket.on("message", (bytes, from) => {
    console.log(from.address + " " + bytes);
    socket.send("back", from.port, from.address);
  });
  socket.bind(7000, () => console.log("ready"));`;
const askUdp = `
  const socket = require("node:dgram").createSocket("udp4");
  socket.on("message", (bytes) => { console.log(String(bytes)); process.exit(0); });
  setTimeout(() => process.exit(3), Number(process.argv[2] ?? 2000));
  socket.send("hello", 7000, process.argv[1]);`;

describe.runIf(needs("netns", "nft", "ping"))("network namespaces", () => {
  it("joins two by a veth pair, over IPv4 and IPv6", async () => {
    await using lab = new Lab();
    const [a, b] = [lab.namespace("a"), lab.namespace("b")];
    lab.link(
      { namespace: a, addresses: ["10.1.0.1/24", "fd00:1::1/64"] },
      { namespace: b, addresses: ["10.1.0.2/24", "fd00:1::2/64"] },
    );
    for (const address of ["10.1.0.2", "fd00:1::2"])
      expect((await a.run("ping", ["-c", "1", "-W", "5", address])).stdout).toContain("1 received");
    expect((await a.run("ping", ["-c", "1", "-W", "1", "10.1.0.3"], { check: false })).code).not.toBe(0);
  });

  it("keeps labs apart that use the same addresses at the same time", async () => {
    await using one = new Lab();
    await using other = new Lab();
    for (const lab of [one, other]) {
      const ends = ["a", "b", "c"].map((label, i) => ({
        namespace: lab.namespace(label),
        addresses: [`10.1.0.${i + 1}/24`],
      }));
      lab.bridge("switch", lab === one ? ends : ends.slice(0, 2));
      const reached = await ends[0]!.namespace.run("ping", ["-c", "1", "-W", "1", "10.1.0.3"], { check: false });
      expect(reached.code === 0).toBe(lab === one);
    }
  });

  it("hides what is behind a masquerading router, lets answers back in and nothing else", async () => {
    await using lab = new Lab();
    const [inside, router, outside] = [lab.namespace("in"), lab.namespace("nat"), lab.namespace("out")];
    lab.link(
      { namespace: inside, addresses: ["192.168.7.2/24"] },
      { namespace: router, addresses: ["192.168.7.1/24"] },
    );
    const [wan] = lab.link(
      { namespace: router, addresses: ["203.0.113.1/24"] },
      { namespace: outside, addresses: ["203.0.113.2/24"] },
    );
    inside.addRoute("default", "192.168.7.1");
    outside.addRoute("192.168.7.0/24", "203.0.113.1");
    router.masquerade(wan);
    const listen = async (namespace: typeof inside): Promise<string[]> => {
      const child = namespace.spawn(process.execPath, ["-e", listenUdp]);
      const lines: string[] = [];
      child.stdout?.setEncoding("utf8").on("data", (text: string) => lines.push(...text.trim().split("\n")));
      await once(child.stdout!, "data");
      return lines;
    };
    const [atOutside, atInside] = [await listen(outside), await listen(inside)];
    expect((await inside.run(process.execPath, ["-e", askUdp, "203.0.113.2"])).stdout).toBe("back\n");
    expect(atOutside).toContain("203.0.113.1 hello");
    expect((await outside.run(process.execPath, ["-e", askUdp, "192.168.7.2", "500"], { check: false })).code).toBe(3);
    expect(atInside).toEqual(["ready"]);
  });

  it("leaves no namespace and no process behind after a failure", async () => {
    let pid = 0;
    const failing = async (): Promise<void> => {
      await using lab = new Lab();
      const a = lab.namespace("a");
      // A grandchild that outlives its parent and ignores SIGTERM.
      const child = a.spawn("sh", ["-c", "(trap '' TERM; sleep 600 & echo $!; wait) & wait"]);
      const [line] = (await once(child.stdout!, "data")) as [Buffer];
      pid = Number(line.toString());
      throw new Error("the test's own");
    };
    await expect(failing()).rejects.toThrow("the test's own");
    expect(namespacesOfThisProcess()).toEqual([]);
    await expect
      .poll(
        () => {
          try {
            return process.kill(pid, 0);
          } catch {
            return false;
          }
        },
        { timeout: 5000 },
      )
      .toBe(false);
  });
});
