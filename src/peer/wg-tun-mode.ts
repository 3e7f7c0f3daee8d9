// `wirebadge wg FILE.conf --tun NAME`: WireGuard by a plain configuration file, for every process of the host, over a
// TUN device. Composition alone: the device as wg(8) knows it (tun/wg-tun-device.ts), its UAPI socket, and the host's
// addresses and routes.

import { type Address, formatAddress } from "../base/address.ts";
import { toBase64 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { MTU_DEFAULT_BYTES } from "../base/limits.ts";
import { Arena } from "../io/ffi/arena.ts";
import { TUN_ARENA_BYTES, TunDevice } from "../io/ffi/tun-device.ts";
import type { DataThreadStatus } from "./data-thread-messages.ts";
import type { Logger } from "./logger.ts";
import { HostNetwork, journalFolder } from "./tun/host-network.ts";
import { openUapi } from "./tun/uapi-open.ts";
import type { UapiServer } from "./tun/uapi-server.ts";
import { DEVICE_NAME } from "./tun/undo-journal.ts";
import { WgTunDevice } from "./tun/wg-tun-device.ts";
import { parseWgConfig, type WgConfig, warnOfIgnored } from "./wg-config.ts";

export interface RunningWgTun {
  readonly publicKey: string;
  readonly addresses: readonly string[];
  readonly entryPoints: readonly [];
  /** The device's name. */
  readonly tun: string;
  status(): Promise<DataThreadStatus>;
  stop(): Promise<void>;
  /** With an error when the device or the data thread is gone for good. */
  readonly stopped: Promise<Error | undefined>;
}

export interface WgTunOptions {
  readonly configText: string;
  /** For messages. */
  readonly fileName: string;
  /** The device's name, 1 to 15 bytes. */
  readonly tunName: string;
  readonly ignoreHooks: boolean;
  readonly requireNative: boolean;
  readonly env: NodeJS.ProcessEnv;
  readonly logger: Logger;
}

/** @throws WirebadgeError CONFIG_INVALID, CONFLICT, PORT_TAKEN, NATIVE_UNAVAILABLE, with nothing left on the host */
export async function startWgTunMode(options: WgTunOptions): Promise<RunningWgTun> {
  const config = parseWgConfig(options.fileName, options.configText, { ignoreHooks: options.ignoreHooks });
  warnOfIgnored(options.fileName, config, options.logger);
  const mode = new WgTunMode(options, config);
  try {
    return await mode.start();
  } catch (error) {
    await mode.stop().catch((failure: unknown) => {
      options.logger.error({ event: "stop-failed", err: failure }, "not all was undone");
    });
    throw error;
  }
}

class WgTunMode {
  readonly #options: WgTunOptions;
  readonly #config: WgConfig;
  #tun: TunDevice | undefined;
  #device: WgTunDevice | undefined;
  #uapi: UapiServer | undefined;
  #host: HostNetwork | undefined;
  #stopping: Promise<void> | undefined;
  /** Addresses of peers that the log has named already. */
  readonly #looping = new Set<string>();

  constructor(options: WgTunOptions, config: WgConfig) {
    this.#options = options;
    this.#config = config;
  }

  async start(): Promise<RunningWgTun> {
    const { logger, requireNative, tunName } = this.#options;
    const mtuBytes = this.#config.mtuBytes ?? MTU_DEFAULT_BYTES;
    const tun = TunDevice.open(new Arena(TUN_ARENA_BYTES), tunName);
    this.#tun = tun;
    const device = new WgTunDevice({
      config: this.#config,
      tun: tun.opened,
      mtuBytes,
      requireNative,
      logger,
      hostMark: () => this.#host?.markNeeded ?? 0,
      onApplied: () => this.#warnOfLoops(),
    });
    this.#device = device;
    await device.start();
    const stop = (): Promise<void> => this.stop();
    this.#uapi = await openUapi({ name: tun.name, backend: device, readOnly: false, logger, stop });
    this.#host = await device.inTurn(() => this.#setUpHost(tun.name, mtuBytes, device));
    this.#warnOfLoops();
    return {
      publicKey: toBase64(device.publicKey),
      addresses: this.#config.ownAddresses.map(formatAddress),
      entryPoints: [],
      tun: tun.name,
      status: () => device.status(),
      stop: () => this.stop(),
      stopped: device.ended,
    };
  }

  /** Once, in an order in which nothing is used after its end. @throws what could not be undone, when all else is */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    await this.#uapi?.close();
    try {
      await this.#host?.down();
    } finally {
      await this.#device?.close();
      this.#tun?.close();
    }
  }

  #setUpHost(name: string, mtuBytes: number, device: WgTunDevice): Promise<HostNetwork> {
    const { fwMark, interfaceAddresses, peers, table } = this.#config;
    const { env, logger } = this.#options;
    const routes = peers.flatMap(({ allowedIps }) => allowedIps);
    const plan = { name, mtuBytes, addresses: interfaceAddresses, routes, table, fwMark };
    const setMark = (mark: number): void => device.setMark(mark);
    return HostNetwork.up(plan, { journalFolder: journalFolder(env), logger, setMark });
  }

  /** Says once of each peer's address that the host routes it into the device; the data thread drops what comes so. */
  #warnOfLoops(): void {
    const { logger } = this.#options;
    this.#findLoops().catch((error: unknown) => {
      if (this.#stopping === undefined) logger.warn({ event: "loops-unknown", err: error }, "routes can't be read");
    });
  }

  async #findLoops(): Promise<void> {
    const unnamed = new Map<string, Address>();
    for (const { address } of this.#device?.endpoints() ?? []) {
      const text = formatAddress(address);
      if (!this.#looping.has(text)) unnamed.set(text, address);
    }
    if (this.#host === undefined || unnamed.size === 0) return;
    for (const address of await this.#host.findLoops([...unnamed.values()])) {
      const text = formatAddress(address);
      if (this.#looping.has(text)) continue;
      this.#looping.add(text);
      const hint = "take it out of AllowedIPs, or give it a route of its own past the device";
      const message = `the way to the endpoint ${text} leads into the tunnel itself: nothing reaches it there`;
      this.#options.logger.warn({ event: "endpoint-loop", address: text, hint }, message);
    }
  }
}

/** As wg-quick names it: after the file. @throws WirebadgeError USAGE when that is no interface's name */
export function tunNameOf(fileName: string): string {
  const name = fileName
    .split("/")
    .at(-1)!
    .replace(/\.conf$/, "");
  if (DEVICE_NAME.test(name)) return name;
  throw new WirebadgeError("USAGE", `no interface can be called ${name}`, {
    hint: "give it a name of at most 15 letters, digits and _=+.-: --tun wg0",
  });
}
