// The UAPI socket of a running device: where its folder is not to be had all else works without it.

import { WirebadgeError } from "../../base/errors.ts";
import type { Logger } from "../logger.ts";
import { UapiServer, type UapiServerOptions } from "./uapi-server.ts";

export interface OpenUapiOptions extends Pick<UapiServerOptions, "name" | "backend" | "readOnly" | "onRefusedSet"> {
  readonly logger: Logger;
  /** Somebody has deleted the socket, which ends the device gracefully. */
  readonly stop: () => Promise<void>;
}

/** Undefined, with a warning, where its folder is not to be had. @throws WirebadgeError PORT_TAKEN */
export async function openUapi({ logger, stop, ...options }: OpenUapiOptions): Promise<UapiServer | undefined> {
  try {
    return await UapiServer.open({
      ...options,
      onFailure: (error) => logger.error({ event: "uapi-failed", err: error }, "wg(8) got no answer"),
      onRemoved: () => {
        logger.info({ event: "uapi-removed" }, "the device's socket was deleted, which ends it");
        stop().catch((error: unknown) => {
          logger.error({ event: "stop-failed", err: error }, "not all was undone");
        });
      },
    });
  } catch (error) {
    if (!(error instanceof WirebadgeError && error.code === "FORBIDDEN")) throw error;
    const message = `wg(8) can't speak to ${options.name}: ${error.message}`;
    logger.warn({ event: "no-uapi", hint: error.hint }, message);
    return undefined;
  }
}
