// What every contender is started on: two fresh network namespaces joined by one veth pair, without a way anywhere
// else.
import { Lab, type Namespace } from "../../test/namespaces.ts";

export type Side = "a" | "b";
export const SIDES: readonly Side[] = ["a", "b"];

/** Outside of the tunnel, and inside. */
export const UNDERLAY: Readonly<Record<Side, string>> = { a: "10.77.0.1", b: "10.77.0.2" };
export const OVERLAY: Readonly<Record<Side, string>> = { a: "10.78.0.1", b: "10.78.0.2" };
export const LINK_MTU = 1500;
export const TUNNEL_MTU = 1420;
export const PORT = 51_820;

/** Thousands of connections a second leave as many ports in TIME_WAIT. */
export function allowManyConnections(namespace: Namespace): void {
  namespace.setSysctl("net.ipv4.ip_local_port_range", "1024 65535");
  namespace.setSysctl("net.ipv4.tcp_tw_reuse", "1");
}

let count = 0;

export class Bed implements AsyncDisposable {
  readonly #lab = new Lab();
  readonly namespaces: Readonly<Record<Side, Namespace>>;
  /** For interfaces: WireGuard's control sockets lie in one folder for all namespaces. At most 13 characters. */
  readonly name = `wbt${process.pid % 100_000}x${count++}`;

  constructor() {
    const [a, b] = [this.#lab.namespace("bench-a"), this.#lab.namespace("bench-b")];
    this.namespaces = { a, b };
    for (const namespace of [a, b]) {
      // No router solicitation of a fresh interface may start a tunnel before it is measured.
      namespace.setSysctl("net.ipv6.conf.all.disable_ipv6", "1");
      namespace.setSysctl("net.ipv6.conf.default.disable_ipv6", "1");
      allowManyConnections(namespace);
    }
    const end = (side: Side) => ({ namespace: this.namespaces[side], addresses: [`${UNDERLAY[side]}/24`] });
    this.#lab.link(end("a"), end("b"));
  }

  /** Ends all that runs on it. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#lab.close();
  }
}
