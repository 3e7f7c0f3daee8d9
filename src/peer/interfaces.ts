// This machine's interfaces, as the system lists them: asking takes a file descriptor, and there may be none left.
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";

/** Undefined: the system doesn't say. What is decided by them has to fail then. */
export function listInterfaces(): readonly NetworkInterfaceInfo[] | undefined {
  try {
    return Object.values(networkInterfaces()).flatMap((rows) => rows ?? []);
  } catch {
    return undefined; // ERR_SYSTEM_ERROR, whatever the reason
  }
}
