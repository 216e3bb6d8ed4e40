"""Users of the servers: slixmpp, with nothing granted unasked."""

import asyncio
import dataclasses

from clients import STEP_SECONDS, Account, Client, Failed, Server, check, within
from servers import CLIENT_DIRECT_PORT, CLIENT_PORT, password
from slixmpp.exceptions import IqError, IqTimeout

# A first stanza to another server waits for the dialling, which may wait for dead targets.
FIRST_SECONDS = 30


def person(peer, way, user, resource="here", stream_management=False):
    server = Server(
        host=peer.host, port=CLIENT_PORT, direct_port=CLIENT_DIRECT_PORT, domain=way.domain(peer.label),
        mechanism="", is_corefire=peer.is_corefire, accounts=[],
    )
    return Person(peer, server, Account(user, password(user)), resource, stream_management)


@dataclasses.dataclass
class Refusal:
    condition: str
    text: str

    def __str__(self):
        return f"{self.condition} ({self.text})" if self.text else self.condition


class Person(Client):
    """Knows who is there, who asked what of it, and what came back of what it sent."""

    def __init__(self, peer, server, account, resource, stream_management):
        super().__init__(server, account, resource, "starttls", stream_management)
        self.peer = peer
        self.register_plugin("xep_0092", {"software_name": "test of federation", "version": "1", "os": ""})
        self.roster.auto_authorize = None
        self.roster.auto_subscribe = False
        self.present = {}
        self.asked = []
        self.refused = {}
        # slixmpp's "message" is only one with a body.
        self.add_event_handler("message_error", self._on_message)
        self.add_event_handler("presence", self._seen)
        for kind in ("subscribe", "subscribed", "unsubscribe", "unsubscribed"):
            self.add_event_handler(f"presence_{kind}", lambda it, kind=kind: self._asked(it, kind))

    def _seen(self, presence):
        kind = presence["type"]
        if kind in ("available", "away", "chat", "dnd", "xa", "unavailable"):
            self.present[presence["from"].full] = None if kind == "unavailable" else kind
            self.changed.set()

    def _asked(self, presence, kind):
        self.asked.append((kind, presence["from"].bare))
        self.changed.set()

    def _on_message(self, message):
        if message["type"] == "error":
            error = message["error"]
            self.refused[message["id"]] = Refusal(error["condition"], error["text"])
            self.changed.set()
        else:
            super()._on_message(message)

    def __str__(self):
        return f"{self.boundjid.full} at {self.peer.maker}"

    def _ended_badly(self):
        return [event for event in ("failed_all_auth", "connection_failed", "disconnected") if event in self.seen]

    def drop(self):
        """Whatever there is of a connection."""
        self.cancel_connection_attempt()
        self.abort()

    async def sees(self, other, state):
        """`state`: available, away… or None for gone."""
        full = other.boundjid.full

        def is_so():
            return full in self.present and self.present[full] == state

        await self.until(is_so, f"{full} is {state or 'gone'}")

    async def is_asked(self, kind, other):
        await self.until(lambda: (kind, other.bare) in self.asked, f"{kind} from {other.bare}")

    def tell(self, kind, other):
        self.send_presence(pto=other.bare, ptype=kind)

    async def subscription(self, other, state):
        """As the roster says when it is asked."""

        def told():
            return self.client_roster[other.bare]["subscription"] if other.bare in self.client_roster else "none"

        await self.until(lambda: told() == state, f"subscription {state} to {other.bare}, not {told()}")

    async def asks(self, query, what, seconds=FIRST_SECONDS):
        """The answer to a request, or its refusal."""
        try:
            return await within(query, f"{self}: {what}", seconds + 2)
        except IqError as error:
            return Refusal(error.condition, error.text)
        except IqTimeout:
            raise Failed(f"{self}: {what}: no answer in {seconds} s") from None

    async def is_refused(self, id, what, seconds=FIRST_SECONDS):
        """An error for the message with this id."""

        async def wait():
            while id not in self.refused:
                self.changed.clear()
                await self.changed.wait()

        await within(wait(), f"{self}: {what}", seconds)
        return self.refused[id]

    def writes(self, to, body, **more):
        """Gives its id."""
        message = self.make_message(mto=to, mbody=body, mtype="chat")
        message["id"] = self.new_id()
        message.send()
        return message["id"]

    async def hears(self, other, bodies, seconds=STEP_SECONDS):
        """These from the other, in this order, and nothing else from it."""

        def heard():
            return [it["body"] for it in self.received if it["from"].bare == other.bare]

        async def wait():
            while len(heard()) < len(bodies):
                self.changed.clear()
                await self.changed.wait()

        try:
            await within(wait(), "", seconds)
        except Failed:
            missing = [body for body in bodies if body not in heard()]
            refusals = {id: str(refusal) for id, refusal in other.refused.items()}
            raise Failed(
                f"{self}: {len(heard())} of {len(bodies)} messages from {other} within {seconds} s;"
                f" the first missing: {missing[0]!r}; errors at the sender: {refusals}"
            ) from None
        check(heard() == list(bodies), f"{self} heard {heard()} of {other}, wanted {list(bodies)}")
        self.received = [it for it in self.received if it["from"].bare != other.bare]


async def both(one, two):
    return await asyncio.gather(one, two)
