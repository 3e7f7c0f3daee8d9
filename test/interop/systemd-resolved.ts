// The real systemd-resolved with a system bus of its own, in a network namespace of the test: with /run, /etc/passwd
// and /etc/resolv.conf of its own, so that the machine's are never touched. Other names it asks of an upstream server,
// which writes down what it was asked. Needs "netns", "systemd-resolved", "resolvectl", "dbus-daemon" and "nsenter".
import { dirname, join, resolve } from "node:path";
import type { Namespace, Outcome } from "../namespaces.ts";
import { requireTool } from "../needs.ts";
import { Program, until } from "../scripts/program.ts";

const UPSTREAM = "127.0.0.9";

const SCRIPT = `
set -e
mount -t tmpfs none /run
mkdir -p /run/dbus /run/systemd/resolve
for file in passwd group; do cp /etc/$file /run/$file; mount --bind /run/$file /etc/$file; done
echo 'systemd-resolve:x:996:996::/:/usr/sbin/nologin' >> /etc/passwd
echo 'systemd-resolve:x:996:' >> /etc/group
chown 996:996 /run/systemd/resolve
echo 'nameserver ${UPSTREAM}' > /run/resolv.conf
mount --bind /run/resolv.conf "$(readlink -f /etc/resolv.conf)"
cat > /run/bus.conf <<'END'
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
</policy></busconfig>
END
"$DBUS_DAEMON" --config-file=/run/bus.conf --nofork --nopidfile &
until [ -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
exec "$SYSTEMD_RESOLVED"
`;

const UPSTREAM_SCRIPT = `
  const socket = require("node:dgram").createSocket("udp4");
  socket.on("message", (bytes, from) => {
    const labels = [];
    for (let at = 12; bytes[at] > 0; at += bytes[at] + 1)
      labels.push(bytes.toString("latin1", at + 1, at + 1 + bytes[at]));
    console.log(labels.join("."));
    bytes[2] |= 0x80;
    bytes[3] = 0x83;
    bytes.writeUInt16BE(0, 10);
    let end = 12;
    while (bytes[end] > 0) end += bytes[end] + 1;
    socket.send(bytes.subarray(0, end + 5), from.port, from.address);
  });
  socket.bind(53, ${JSON.stringify(UPSTREAM)}, () => console.log("ready"));`;

export class SystemdResolved {
  readonly #namespace: Namespace;
  readonly #program: Program;
  readonly #upstream: Program;

  private constructor(namespace: Namespace, program: Program, upstream: Program) {
    this.#namespace = namespace;
    this.#program = program;
    this.#upstream = upstream;
  }

  static async start(namespace: Namespace): Promise<SystemdResolved> {
    const upstream = new Program("upstream", process.execPath, ["-e", UPSTREAM_SCRIPT], { namespace });
    await until("an upstream server", () => upstream.lines.includes("ready"));
    const args = ["--mount", "--propagation", "private", "sh", "-c", SCRIPT];
    const program = new Program("systemd-resolved", requireTool("unshare"), args, { namespace, env: environment() });
    const resolved = new SystemdResolved(namespace, program, upstream);
    await until("systemd-resolved", async () => {
      if (!program.alive) throw new Error(`systemd-resolved ended:\n${program.tail}`);
      return (await resolved.resolvectl("status")).code === 0;
    });
    return resolved;
  }

  /** Names that it asked of others. */
  get askedUpstream(): string[] {
    return this.#upstream.stdoutLines.filter((line) => line !== "ready");
  }

  /** Arguments of nsenter(1) by which a command sees its bus and its files. */
  get inside(): string[] {
    return [`--mount=/proc/${this.#program.pid}/ns/mnt`, "--"];
  }

  /** A program inside, with this `resolvectl` on its PATH. */
  program(name: string, command: string, args: readonly string[], stdin?: string): Program {
    const all = [...this.inside, command, ...args];
    return new Program(name, requireTool("nsenter"), all, { namespace: this.#namespace, env: environment(), stdin });
  }

  run(command: string, ...args: readonly string[]): Promise<Outcome> {
    return this.#namespace.run(requireTool("nsenter"), [...this.inside, command, ...args], {
      check: false,
      env: environment(),
      timeoutMs: 20_000,
    });
  }

  resolvectl(...args: readonly string[]): Promise<Outcome> {
    return this.run(requireTool("resolvectl"), ...args);
  }
}

/** Unpacked beside the machine's own (dpkg -x), its libraries are, too. */
function environment(): NodeJS.ProcessEnv {
  const resolved = requireTool("systemd-resolved");
  const root = resolve(dirname(resolved), "../..");
  const libraries = ["x86_64", "aarch64"].map((machine) => join(root, `usr/lib/${machine}-linux-gnu/systemd`));
  return {
    ...process.env,
    PATH: [dirname(requireTool("resolvectl")), process.env["PATH"] ?? "", "/usr/sbin", "/sbin"].join(":"),
    LD_LIBRARY_PATH: libraries.join(":"),
    SYSTEMD_RESOLVED: resolved,
    DBUS_DAEMON: requireTool("dbus-daemon"),
  };
}
