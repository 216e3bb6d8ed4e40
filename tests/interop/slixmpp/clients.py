"""Clients of the scenarios: slixmpp with waiting made explicit, and a raw stream for what no library sends."""

import asyncio
import base64
import dataclasses
import ssl

from slixmpp import ClientXMPP, ComponentXMPP
from slixmpp.exceptions import IqError

# Longest wait for any single step.
STEP_SECONDS = 15


class Failed(Exception):
    """A promise that the server did not keep."""


def check(condition, what):
    if not condition:
        raise Failed(what)


@dataclasses.dataclass
class Account:
    user: str
    password: str


@dataclasses.dataclass
class Server:
    host: str
    port: int
    direct_port: int
    domain: str
    mechanism: str
    is_corefire: bool
    accounts: list[Account]
    # An external component; without a port none can connect.
    component: str = ""
    component_port: int = 0
    secret: str = ""

    def bare(self, account):
        return f"{account.user}@{self.domain}"


def tls_context():
    """Takes any certificate: the server under test signs its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def within(awaitable, what, seconds=STEP_SECONDS):
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except asyncio.TimeoutError:
        raise Failed(f"{what}: nothing within {seconds} s") from None


class Component(ComponentXMPP):
    """One connection of the server's external component."""

    def __init__(self, server, secret=None):
        super().__init__(
            server.component, secret or server.secret, server.host, server.component_port
        )
        self.received = asyncio.Queue()
        self.add_event_handler("message", self.received.put_nowait)
        # What ends an attempt, and what makes it a success.
        self.outcome = asyncio.get_running_loop().create_future()
        for event in ("session_start", "failed_auth", "stream_error", "disconnected"):
            self.add_event_handler(event, lambda told, event=event: self.end(event, told))
        self.auto_reconnect = False

    def end(self, event, told):
        if not self.outcome.done():
            self.outcome.set_result((event, told))

    async def come(self):
        """Gives the name of the event that decided, and what came with it."""
        self.connect()
        return await within(self.outcome, "an answer to the handshake")

    async def leave(self):
        await within(self.disconnect(), "the end of the component's stream")


class Client(ClientXMPP):
    """One session of an account. `tls` is "starttls" or "direct"."""

    def __init__(self, server, account, resource, tls, stream_management=False):
        super().__init__(
            f"{server.bare(account)}/{resource}", account.password, ssl_context=tls_context()
        )
        self.target = server
        self.account = account
        self.bare = server.bare(account)
        self.target_port = server.direct_port if tls == "direct" else server.port
        self.enable_direct_tls = tls == "direct"
        self.enable_starttls = tls == "starttls"
        self.enable_plaintext = False
        for plugin in ("xep_0030", "xep_0199", "xep_0202", "xep_0203", "xep_0313", "xep_0359"):
            self.register_plugin(plugin)
        if stream_management:
            self.register_plugin("xep_0198")

        self.received = []
        self.available = set()
        self.seen = {}
        self.changed = asyncio.Event()
        self.add_event_handler("message", self._on_message)
        self.add_event_handler("presence_available", self._on_presence)
        for event in ("changed_subscription", "roster_update"):
            self.add_event_handler(event, lambda _: self.changed.set())
        for event in (
            "session_start",
            "session_resumed",
            "sm_enabled",
            "sm_failed",
            "failed_auth",
            "failed_all_auth",
            "connection_failed",
            "disconnected",
        ):
            self.add_event_handler(event, lambda _, event=event: self._on_event(event))

    def _on_message(self, message):
        self.received.append(message)
        self.changed.set()

    def _on_presence(self, presence):
        self.available.add(presence["from"].full)
        self.changed.set()

    def _on_event(self, event):
        self.seen[event] = self.seen.get(event, 0) + 1
        self.changed.set()

    async def until(self, condition, what):
        """Waits until `condition` holds, looking again whenever something arrives."""

        async def wait():
            while not condition():
                self.changed.clear()
                await self.changed.wait()

        await within(wait(), f"{self.boundjid}: {what}")

    def _ended_badly(self):
        return [event for event in ("failed_all_auth", "connection_failed") if event in self.seen]

    async def establish(self, *events):
        """Connects, and waits for one of the events that mean success."""
        for event in events:
            self.seen.pop(event, None)
        self.connect(self.target.host, self.target_port)
        await self.until(
            lambda: any(event in self.seen for event in events) or self._ended_badly(),
            " or ".join(events),
        )
        check(not self._ended_badly(), f"{self.boundjid}: {self._ended_badly()}")

    async def login(self, presence=True):
        await self.establish("session_start")
        check("failed_auth" not in self.seen, f"{self.boundjid}: a mechanism failed first")
        if presence:
            await within(self.get_roster(timeout=STEP_SECONDS), f"{self.boundjid}: roster")
            self.send_presence()
        return self

    def mechanism(self):
        return self.plugin["feature_mechanisms"].mech.name

    async def logout(self):
        await within(self.disconnect(), f"{self.boundjid}: end of stream")
        await self.until(lambda: not self.is_connected(), "disconnect")

    async def cut(self):
        """Drops the TCP connection without a word, as a dead network does."""
        self.transport.abort()
        await self.until(lambda: not self.is_connected(), "the cut")

    async def ping_server(self):
        """What the server sent before its answer has been read when this returns."""
        await within(
            self.plugin["xep_0199"].send_ping(self.target.domain, timeout=STEP_SECONDS),
            f"{self.boundjid}: ping of the server",
        )

    async def pass_through(self, bare):
        """An IQ to an account, answered on its behalf (RFC 6121 §8.5.1): it comes behind the messages sent to the
        same address before, so that they are handled when the answer is here, whichever answer it is."""
        try:
            await within(
                self.plugin["xep_0030"].get_info(jid=bare, timeout=STEP_SECONDS),
                f"{self.boundjid}: answer for {bare}",
            )
        except IqError:
            pass

    def say(self, to, bodies):
        for body in bodies:
            self.send_message(mto=to, mbody=body, mtype="chat")

    def bodies(self):
        return [message["body"] for message in self.received]

    async def hears_exactly(self, bodies, what):
        """The bodies arrive in order, each once, and nothing beside them."""
        bodies = list(bodies)
        await self.until(
            lambda: len(self.received) >= len(bodies),
            f"{what}: {len(bodies)} messages",
        )
        await self.ping_server()
        check(
            self.bodies() == bodies,
            f"{what}: {self.boundjid} heard {self.bodies()}, wanted {bodies}",
        )
        return self.received

    def forget(self):
        self.received = []


class RawStream:
    """A TLS stream in bytes: sends what it is told, when it is told."""

    @classmethod
    async def connect(cls, server):
        stream = cls()
        stream.server = server
        stream.reader, stream.writer = await within(
            asyncio.open_connection(
                server.host, server.direct_port, ssl=tls_context(), server_hostname=server.domain
            ),
            "direct TLS",
        )
        stream.text = ""
        return stream

    def certificate(self):
        return self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)

    def header(self):
        return (
            f"<?xml version='1.0'?><stream:stream to='{self.server.domain}' version='1.0' "
            "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        )

    def auth(self, mechanism, message):
        encoded = base64.b64encode(message).decode()
        return (
            f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{encoded}</auth>"
        )

    def send(self, text):
        self.writer.write(text.encode())

    async def until(self, *marks):
        """Reads until one of the marks; gives what came up to its end, and keeps the rest."""

        async def read():
            while True:
                for mark in marks:
                    at = self.text.find(mark)
                    if at >= 0:
                        taken = self.text[: at + len(mark)]
                        self.text = self.text[len(taken) :]
                        return taken
                data = await self.reader.read(65536)
                check(data, f"raw stream: closed before {marks}; it said {self.text[-400:]}")
                self.text += data.decode()

        return await within(read(), f"raw stream: {marks}; it said {self.text[-400:]}")

    async def close(self):
        self.send("</stream:stream>")
        await self.until("</stream:stream>")
        self.writer.close()
