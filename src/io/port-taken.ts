// The one answer to a UDP port that can't be opened, whichever way it was tried.
import { WirebadgeError } from "../base/errors.ts";

export function errnoOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "UNKNOWN";
}

/** PORT_TAKEN; `cause` is the system's error. */
export function portTaken(port: number, cause: unknown): WirebadgeError {
  return new WirebadgeError("PORT_TAKEN", `UDP port ${port} can't be opened (${errnoOf(cause)})`, {
    hint: "choose another with --listen-port, or leave the option out",
    cause,
  });
}

/** A machine without IPv6 (or IPv4), or with it switched off: the other family alone does. */
export function isFamilyMissing(cause: unknown): boolean {
  return ["EAFNOSUPPORT", "EADDRNOTAVAIL"].includes(errnoOf(cause));
}
