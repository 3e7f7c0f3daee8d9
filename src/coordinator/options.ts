// What a coordinator is started with.

import type { Random } from "../base/random.ts";
import type { Crypto } from "../crypto/provider.ts";
import type { Clock } from "../io/clock.ts";

export const DEFAULT_LISTEN = "127.0.0.1:7470";
export const DEFAULT_ADMIN_LISTEN = "127.0.0.1:7471";

/** The narrow part of a pino logger that is used; secrets never go in. */
export interface Logger {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
  debug(details: object, message: string): void;
}

export interface CoordinatorOptions {
  /** Keys, store, admin.token: one folder, one network. */
  readonly dataDir: string;
  /** `HOST:PORT` of the control channel and, unless `udp` says otherwise, of the UDP probe. Port 0: any free one. */
  readonly listen: string;
  /** What tokens carry; needed when `listen` is unspecified (0.0.0.0, ::). Default `http://` + listen. */
  readonly url?: string | undefined;
  /**
   * `HOST:PORT` where peers reach the UDP probe from outside, as told in the netmap. Default: the listen address, or
   * the URL's host.
   */
  readonly udp?: string | undefined;
  /** `HOST:PORT` of the admin API; DEFAULT_ADMIN_LISTEN unless given. */
  readonly adminListen?: string | undefined;
  /** Name of a new network; a DNS label. Default "wirebadge". */
  readonly networkName?: string | undefined;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly crypto: Crypto;
  readonly random: Random;
  /** "wirebadge 0.1.0" */
  readonly software: string;
}

export interface RunningCoordinator {
  /** As tokens carry it. */
  readonly url: string;
  /** `http://HOST:PORT` of the admin API. */
  readonly adminUrl: string;
  readonly adminTokenFile: string;
  readonly networkId: string;
  stop(): Promise<void>;
}
