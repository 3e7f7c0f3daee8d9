// Errors as Node's own sockets give them, so that a program which knows those understands ours: `code`, `errno`,
// `syscall`, and for a connection `address` and `port`.
import { constants } from "node:os";

export interface SocketErrorPlace {
  readonly address?: string;
  readonly port?: number;
}

/** `errno` is negative, as libuv has it; none for codes that are no errno. */
export class SocketError extends Error {
  override readonly name: string = "Error"; // as Node's own are called
  readonly code: string;
  readonly errno: number | undefined;
  readonly syscall: string;
  readonly address: string | undefined;
  readonly port: number | undefined;

  constructor(code: string, message: string, syscall: string, place: SocketErrorPlace = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    const errno: Readonly<Record<string, number>> = constants.errno;
    this.code = code;
    this.errno = errno[code] === undefined ? undefined : -errno[code];
    this.syscall = syscall;
    this.address = place.address;
    this.port = place.port;
  }
}

/** `socketError("ECONNRESET", "the far end reset the connection")` */
export function socketError(code: string, what: string, syscall = "read"): SocketError {
  return new SocketError(code, `${syscall} ${code}: ${what}`, syscall);
}
