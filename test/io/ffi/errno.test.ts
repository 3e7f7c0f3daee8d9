import { describe, expect, it } from "vitest";
import { errnoName, lastErrno, systemError } from "../../../src/io/ffi/errno.ts";
import { EventFd } from "../../../src/io/ffi/event-fd.ts";
import { bindNative } from "../../../src/io/ffi/koffi.ts";
import { needs } from "../../needs.ts";

describe.runIf(needs("linux"))("errno", () => {
  it.each([
    [1, "EPERM"],
    [5, "EIO"],
    [9, "EBADF"],
    [11, "EAGAIN"],
    [16, "EBUSY"],
    [22, "EINVAL"],
    [77, "EBADFD"],
    [90, "EMSGSIZE"],
    [98, "EADDRINUSE"],
    [101, "ENETUNREACH"],
    [105, "ENOBUFS"],
  ])("%i is %s, whichever its sign", (code, name) => {
    expect([errnoName(code), errnoName(-code)]).toEqual([name, name]);
  });

  it("names what nobody has named by its number", () => {
    expect(errnoName(4711)).toBe("ERRNO_4711");
  });

  it("is that of the call just made, in the shape of Node's own errors", () => {
    expect(bindNative("close", "int", "int")(-1)).toBe(-1);
    const error = systemError("close", lastErrno());
    expect(error).toMatchObject({ code: "EBADF", errno: -9, syscall: "close", message: "close: EBADF" });
  });
});

describe.runIf(needs("linux"))("an eventfd", () => {
  it("takes any number of signals and drains, open or closed", () => {
    const event = EventFd.create();
    const same = EventFd.of(event.fd);
    event.drain();
    for (let i = 0; i < 3; i++) same.signal();
    event.drain();
    event.drain();
    same.close();
    expect(same.fd).toBe(-1);
    event.signal(); // the descriptor is its creator's
    event.close();
    event.close();
    event.signal();
    event.drain();
    expect(event.fd).toBe(-1);
  });

  it("says what went wrong when the descriptor is no eventfd", () => {
    const wrong = EventFd.of(1_000_000);
    expect(() => wrong.signal()).toThrow("EBADF");
    expect(() => wrong.drain()).toThrow("EBADF");
  });
});
