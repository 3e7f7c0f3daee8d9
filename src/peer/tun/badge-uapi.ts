// The device of `wirebadge up --tun` as wg(8) may see it: its peers as the netmap and the packet path have them. Keys
// and settings are the coordinator's; nothing can be set here.
import { parsePrefix } from "../../base/address.ts";
import { fromBase64 } from "../../base/bytes.ts";
import type { PeerEntry } from "../../control/netmap.ts";
import type { PathReport } from "../packet-path.ts";
import { UAPI_ERRNO, type UapiDevice, type UapiPeer } from "./uapi-codec.ts";
import type { UapiBackend } from "./uapi-server.ts";

export interface BadgeUapiOptions {
  readonly listenPort: () => number;
  readonly peers: () => readonly PeerEntry[];
  readonly report: () => Promise<PathReport>;
}

export class BadgeUapi implements UapiBackend {
  readonly #options: BadgeUapiOptions;

  constructor(options: BadgeUapiOptions) {
    this.#options = options;
  }

  async get(): Promise<UapiDevice> {
    const { listenPort, peers, report } = this.#options;
    const rows = new Map((await report()).peers.map((row) => [row.session, row]));
    const shown = peers().flatMap((entry): UapiPeer[] => {
      const publicKey = fromBase64(entry.publicKey);
      if (publicKey === undefined) return [];
      const row = rows.get(entry.session);
      return [
        {
          publicKey,
          presharedKey: undefined,
          endpoint: row?.endpoint,
          persistentKeepaliveSeconds: 0,
          allowedIps: entry.prefixes.map(parsePrefix).filter((prefix) => prefix !== undefined),
          lastHandshakeMs: row?.lastHandshakeMs ?? 0, // the clocks of this process are close to Unix time
          sentBytes: row?.sentBytes ?? 0,
          receivedBytes: row?.receivedBytes ?? 0,
        },
      ];
    });
    return { privateKey: undefined, listenPort: listenPort(), fwMark: 0, peers: shown };
  }

  async set(): Promise<number> {
    return UAPI_ERRNO.EPERM;
  }
}
