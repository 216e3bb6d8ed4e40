"""aioxmpp for run.py: commands and events are lines of JSON on standard input and output.

aioxmpp_client.py JID PASSWORD PORT starttls|direct      trusts the certificates of SSL_CERT_FILE
"""

import asyncio
import json
import sys

import aioxmpp
import aioxmpp.dispatcher


def tell(kind, **facts):
    print(json.dumps({"is": kind, **facts}), flush=True)


class Session:
    def __init__(self, jid, password, port, tls):
        direct = aioxmpp.connector.XMPPOverTLSConnector()
        connector = direct if tls == "direct" else aioxmpp.connector.STARTTLSConnector()
        self.client = aioxmpp.PresenceManagedClient(
            aioxmpp.JID.fromstr(jid),
            aioxmpp.make_security_layer(password),
            override_peer=[("localhost", port, connector)],
        )
        self.client.on_failure.connect(lambda error: tell("failed", cause=repr(error)))
        self.client.on_stream_resumed.connect(lambda: tell("resumed"))
        self.client.on_stream_suspended.connect(lambda _: tell("suspended"))
        self.is_seen = asyncio.Event()
        self.roster = self.client.summon(aioxmpp.RosterClient)
        self.roster.on_subscribe.connect(lambda it: tell("subscribe", **{"from": str(it.from_)}))
        messages = self.client.summon(aioxmpp.dispatcher.SimpleMessageDispatcher)
        messages.register_callback(aioxmpp.MessageType.CHAT, None, self.on_message)
        presences = self.client.summon(aioxmpp.dispatcher.SimplePresenceDispatcher)
        for kind in (aioxmpp.PresenceType.AVAILABLE, aioxmpp.PresenceType.UNAVAILABLE):
            presences.register_callback(kind, None, self.on_presence)

    def on_message(self, message):
        delayed = bool(message.xep0203_delay)
        facts = {"from": str(message.from_), "body": message.body.any(), "delayed": delayed}
        tell("message", **facts)

    def on_presence(self, presence):
        if presence.from_ == self.client.local_jid:
            # The server has taken it: from now on messages come here.
            self.is_seen.set()
            return
        facts = {"from": str(presence.from_), "available": presence.type_.value is None}
        tell("presence", **facts)

    async def do(self, command):
        target = aioxmpp.JID.fromstr(command["to"]) if "to" in command else None
        match command["do"]:
            case "say":
                message = aioxmpp.Message(to=target, type_=aioxmpp.MessageType.CHAT)
                message.body[None] = command["body"]
                await self.client.send(message)
            case "subscribe":
                self.roster.subscribe(target)
            case "approve":
                self.roster.approve(target)
            case "roster":
                items = {str(jid): item.subscription for jid, item in self.roster.items.items()}
                tell("roster", items=items)
            case "quit":
                return False
        return True

    async def run(self):
        async with self.client.connected():
            await self.is_seen.wait()
            tell("online", jid=str(self.client.local_jid))
            loop = asyncio.get_running_loop()
            lines = asyncio.StreamReader()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
            while line := await lines.readline():
                if not await self.do(json.loads(line)):
                    return


async def main():
    # aioxmpp takes the loop that is there when it is set up.
    _, jid, password, port, tls = sys.argv
    await Session(jid, password, int(port), tls).run()


if __name__ == "__main__":
    asyncio.run(main())
