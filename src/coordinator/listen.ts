// Listening addresses as text: `HOST:PORT`, `[::1]:7470`, `:7470` is refused (say which address).
import type { Server } from "node:net";
import { formatAddress, isV4, parseAddress } from "../base/address.ts";
import { WirebadgeError } from "../base/errors.ts";

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
  /** 0.0.0.0 or ::, any of this machine's addresses. */
  readonly unspecified: boolean;
  readonly loopback: boolean;
}

/** Throws CONFIG_INVALID, naming the option. `localhost` is the one name that is taken. */
export function parseListen(option: string, text: string): ListenAddress {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const address = parseAddress(host === "localhost" ? "127.0.0.1" : host);
  const port = Number(match?.[3]);
  if (match === null || address === undefined || port > 65_535)
    throw new WirebadgeError("CONFIG_INVALID", `${option} ${JSON.stringify(text)} is not HOST:PORT`, {
      hint: "give an IP address and a port, as in 127.0.0.1:7470 or [::1]:7470",
    });
  const unspecified = (isV4(address) && address.w3 === 0) || formatAddress(address) === "::";
  const loopback = (isV4(address) && address.w3 >>> 24 === 127) || formatAddress(address) === "::1";
  return { host: formatAddress(address), port, unspecified, loopback };
}

/** `127.0.0.1:7470`, `[::1]:7470` */
export function hostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Resolves with the bound port. PORT_TAKEN when it is in use, CONFIG_INVALID when the address isn't this machine's. */
export function listenOn(server: Server, option: string, at: ListenAddress): Promise<number> {
  return new Promise((resolve, reject) => {
    const onError = (cause: Error): void => reject(listenError(option, hostPort(at.host, at.port), cause));
    server.once("error", onError);
    server.listen({ host: at.host, port: at.port, exclusive: true, backlog: 4_096 }, () => {
      server.off("error", onError);
      const bound = server.address();
      resolve(typeof bound === "object" && bound !== null ? bound.port : at.port);
    });
  });
}

export function listenError(option: string, where: string, cause: Error): WirebadgeError {
  const code = "code" in cause ? cause.code : undefined;
  if (code === "EADDRINUSE")
    return new WirebadgeError("PORT_TAKEN", `${where} is in use`, { hint: `choose another with ${option}`, cause });
  return new WirebadgeError("CONFIG_INVALID", `can't listen on ${where}`, {
    hint: code === "EACCES" ? `ports below 1024 need privileges: choose another with ${option}` : `see ${option}`,
    cause,
  });
}
