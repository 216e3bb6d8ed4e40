// xmpp.js for run.py: commands and events are lines of JSON on standard input and output.
//
// node xmppjs_client.mjs MODULES JID PASSWORD PORT starttls|direct     trusts the certificates of NODE_EXTRA_CA_CERTS

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , modules, jid, password, port, tls] = process.argv;
const resolve = createRequire(`${modules}/`).resolve;
const { client, xml } = await import(pathToFileURL(resolve("@xmpp/client")));

const tell = (kind, facts = {}) => console.log(JSON.stringify({ is: kind, ...facts }));

const [username, rest] = jid.split("@");
const [domain, resource] = rest.split("/");
const scheme = tls === "direct" ? "xmpps" : "xmpp";
const session = client({ service: `${scheme}://localhost:${port}`, domain, username, password, resource });

session.reconnect.delay = 200;
// Two seconds by default, which a machine that does much else may need.
session.timeout = 15_000;
session.on("error", (error) => tell("failed", { cause: String(error) }));
session.on("disconnect", () => tell("suspended"));
session.streamManagement.on("resumed", () => tell("resumed"));
// COMPAT(xmpp.js, 0.14): what `iqCaller` waits for is not counted by its XEP-0198, so that a resumed stream would bring
// as many stanzas again.
let answered = null;
const roster = async () => {
  const answer = new Promise((resolve) => (answered = resolve));
  await session.send(xml("iq", { type: "get", id: "roster" }, xml("query", "jabber:iq:roster")));
  return answer;
};

let own = null;
session.on("stanza", (stanza) => {
  const from = stanza.attrs.from;
  if (stanza.is("iq") && stanza.attrs.id === "roster") {
    answered(stanza);
  } else if (stanza.is("presence") && from === own) {
    // The server has taken it: from now on messages come here.
    own = null;
    tell("online", { jid: from });
  } else if (stanza.is("message") && stanza.getChild("body")) {
    const delayed = Boolean(stanza.getChild("delay", "urn:xmpp:delay"));
    tell("message", { from, body: stanza.getChildText("body"), delayed });
  } else if (stanza.is("presence") && stanza.attrs.type === "subscribe") {
    tell("subscribe", { from });
  } else if (stanza.is("presence") && [undefined, "unavailable"].includes(stanza.attrs.type)) {
    tell("presence", { from, available: stanza.attrs.type === undefined });
  }
});
session.on("online", async (address) => {
  await roster();
  own = address.toString();
  await session.send(xml("presence"));
});

const actions = {
  say: ({ to, body }) => session.send(xml("message", { to, type: "chat" }, xml("body", {}, body))),
  subscribe: ({ to }) => session.send(xml("presence", { to, type: "subscribe" })),
  approve: ({ to }) => session.send(xml("presence", { to, type: "subscribed" })),
  roster: async () => {
    const query = (await roster()).getChild("query");
    const items = query.getChildren("item").map(({ attrs }) => [attrs.jid, attrs.subscription]);
    tell("roster", { items: Object.fromEntries(items) });
  },
  quit: async () => {
    await session.stop();
    process.exit(0);
  },
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  Promise.resolve(actions[command.do](command)).catch((error) => tell("failed", { cause: String(error) }));
});
session.start().catch((error) => tell("failed", { cause: String(error) }));
