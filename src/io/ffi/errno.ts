// Error numbers of Linux (asm-generic, the same on x64 and arm64) and their names: what a failing system call is thrown
// or counted by.
import { constants } from "node:os";
import { koffi } from "./koffi.ts";

export const EPERM = 1;
export const EINTR = 4;
export const EIO = 5;
export const EBADF = 9;
export const EAGAIN = 11;
export const EACCES = 13;
export const EBUSY = 16;
export const EINVAL = 22;
export const EMSGSIZE = 90;
export const EAFNOSUPPORT = 97;
export const EADDRINUSE = 98;
export const EADDRNOTAVAIL = 99;
export const ENOBUFS = 105;

export const EBADFD = 77; // a TUN whose device is gone; Node has no name for it

let names: Map<number, string> | undefined;

/** `errnoName(90)` and `errnoName(-90)` are "EMSGSIZE"; a number without a name is "ERRNO_4711". */
export function errnoName(code: number): string {
  if (names === undefined) {
    names = new Map([[EBADFD, "EBADFD"]]);
    // Of two names for one number (EWOULDBLOCK) the first in the alphabet is the usual one.
    for (const [name, value] of Object.entries(constants.errno).sort()) {
      if (!names.has(value)) names.set(value, name);
    }
  }
  const positive = Math.abs(code);
  return names.get(positive) ?? `ERRNO_${positive}`;
}

/** Of the native call just made on this thread, if it failed; nothing else may run in between. */
export function lastErrno(): number {
  return koffi().errno();
}

/** A failed system call in the shape of Node's own errors: `code` is the errno's name. */
export function systemError(syscall: string, errno: number): NodeJS.ErrnoException {
  const code = errnoName(errno);
  return Object.assign(new Error(`${syscall}: ${code}`), { code, errno: -Math.abs(errno), syscall });
}
