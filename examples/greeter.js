// An HTTP service on the overlay that knows its callers, without a port on this host: `node examples/greeter.js`, with
// the WIREBADGE_TOKEN of a node. Others reach it by that name, as far as the policy lets them: http://greeter/
//   "grants": [{ "from": "agent:coder", "to": "node:greeter tcp:80" }]
import { createServer } from "node:http";
import { join } from "wirebadge";

const net = await join({ token: process.env.WIREBADGE_TOKEN, state: process.env.WIREBADGE_STATE });
const server = createServer((request, response) => {
  const caller = net.whois(request.socket);
  const sponsor = caller?.sponsor === undefined ? "" : `, who works for ${caller.sponsor}`;
  response.end(`hello ${caller?.identity}${sponsor}\n`);
});
net.listen(80, server).on("listening", () => console.log(`${net.identity} listens at ${net.addresses[0]}`));
process.once("SIGTERM", () => net.close());
