// The admin API's listener: who may speak to it at all (Host against DNS rebinding, bearer secret in constant time,
// body size), and what every failure looks like. The routes themselves are in admin-routes.ts.
import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type Server } from "node:http";
import { getRequestListener } from "@hono/node-server";
import { OpenAPIHono } from "@hono/zod-openapi";
import { HTTPException } from "hono/http-exception";
import { WirebadgeError } from "../../base/errors.ts";
import { ADMIN_API_BODY_MAX_BYTES } from "../../base/limits.ts";
import { SECOND_MS } from "../../base/units.ts";
import { type ListenAddress, listenOn } from "../listen.ts";
import { type AdminParts, addAdminRoutes } from "./admin-routes.ts";
import { answerProblem } from "./problem.ts";

const REQUEST_MAX_MS = 30 * SECOND_MS;

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/**
 * Loopback is reached by a browser that a page's DNS name was pointed at: only loopback's own names may stand in Host.
 */
function isLoopbackHost(host: string | undefined): boolean {
  return host !== undefined && /^(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?$/i.test(host);
}

export class AdminServer {
  readonly #parts: AdminParts;
  readonly #tokenDigest: Buffer;
  #http: Server | undefined;

  constructor(parts: AdminParts & { readonly adminToken: string }) {
    this.#parts = parts;
    this.#tokenDigest = digest(parts.adminToken);
  }

  /** Resolves with the bound port. */
  async start(at: ListenAddress): Promise<number> {
    const app = this.#app(at.loopback);
    const listener = getRequestListener(app.fetch, { overrideGlobalObjects: false });
    this.#http = createServer({ requestTimeout: REQUEST_MAX_MS, maxHeaderSize: 16_384 }, (request, response) => {
      void listener(request, response);
    });
    this.#http.maxConnections = 256;
    return await listenOn(this.#http, "--admin-listen", at);
  }

  stop(): Promise<void> {
    const http = this.#http;
    if (http === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      http.close(() => resolve());
      http.closeAllConnections();
    });
  }

  #app(loopback: boolean): OpenAPIHono {
    const { core } = this.#parts;
    const app = new OpenAPIHono({
      defaultHook: (result) => {
        if (result.success) return;
        const issue = result.error.issues[0];
        const where = issue?.path.join(".") || "the request";
        throw new WirebadgeError("CONFIG_INVALID", `${where}: ${issue?.message ?? "bad"}`, {
          hint: "see /v1/openapi.json for what this endpoint takes",
        });
      },
    });
    app.use(async (context, next) => {
      if (loopback && !isLoopbackHost(context.req.header("host"))) {
        core.counters.add("admin-bad-host");
        throw new WirebadgeError("FORBIDDEN", "the Host header names another host", {
          hint: "speak to the admin API by 127.0.0.1, [::1] or localhost",
        });
      }
      if (!this.#authorized(context.req.header("authorization"))) {
        core.counters.add("admin-unauthorized");
        throw new WirebadgeError("UNAUTHORIZED", "the admin token is missing or wrong", {
          hint: "send the content of the data folder's admin.token: Authorization: Bearer wb_admin_…",
        });
      }
      await next();
      context.header("cache-control", "no-store");
      return undefined;
    });
    app.use(async (context, next) => {
      // Node holds a body to its declared length; one without is refused, so nothing is read to find out.
      const declared = Number(context.req.header("content-length") ?? "0");
      const chunked = context.req.header("transfer-encoding") !== undefined;
      if (chunked || !(declared <= ADMIN_API_BODY_MAX_BYTES)) {
        context.header("connection", "close"); // the rest of the body is not waited for
        const message = chunked ? "the body has no Content-Length" : "the body is too large";
        const hint = `send at most ${ADMIN_API_BODY_MAX_BYTES} bytes, with Content-Length`;
        return answerProblem(context, new WirebadgeError("TOO_LARGE", message, { hint }), core.logger);
      }
      return await next();
    });
    app.notFound((context) =>
      answerProblem(
        context,
        new WirebadgeError("NOT_FOUND", "there is no such endpoint", { hint: "see /v1/openapi.json" }),
        core.logger,
      ),
    );
    app.onError((error, context) => {
      const known =
        error instanceof HTTPException
          ? new WirebadgeError(error.status === 413 ? "TOO_LARGE" : "CONFIG_INVALID", error.message || "bad request")
          : error;
      return answerProblem(context, known, core.logger);
    });
    addAdminRoutes(app, this.#parts);
    app.doc31("/v1/openapi.json", { openapi: "3.1.0", info: { title: "Wirebadge admin API", version: "1" } });
    return app;
  }

  #authorized(header: string | undefined): boolean {
    const given = /^Bearer (\S+)$/i.exec(header ?? "")?.[1];
    return timingSafeEqual(digest(given ?? ""), this.#tokenDigest) && given !== undefined;
  }
}
