// For a process that runs an example of this checkout: "wirebadge" is the sources, not a build of them.
import { registerHooks } from "node:module";

const SOURCES: Readonly<Record<string, string>> = {
  wirebadge: new URL("../../src/sdk/join.ts", import.meta.url).href,
  "wirebadge/register": new URL("../../src/sdk/register.ts", import.meta.url).href,
};

registerHooks({
  resolve: (specifier, context, next) => next(SOURCES[specifier] ?? specifier, context),
});
