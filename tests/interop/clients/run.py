#!/usr/bin/env python3
"""Clients of different makers with one another: aioxmpp (Python), xmpp.js (JavaScript), go-sendxmpp (Go).

    run.py --binary target/debug/corefire      starts a server of its own, with four shards, and ends it

Each logs in over STARTTLS and over direct TLS, and trusts the server's certificate and no other. One line `ok NAME` a
scenario; exit status 1 at the first that fails. aioxmpp goes into a virtual environment and xmpp.js into a folder below
`--packages`, from their registries; go-sendxmpp is Debian's.
"""

import argparse
import asyncio
import itertools
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from server import Corefire  # noqa: E402

STEP_SECONDS = 20
SCENARIO_SECONDS = 90
INSTALL_SECONDS = 300
USERS = ("ada", "bea", "cyd", "dot", "eve", "fay", "gus", "hal")


class Failed(Exception):
    """A promise that was not kept."""


class Place:
    """Where clients find their packages and the server."""

    def __init__(self, packages):
        self.venv = packages / "clients-venv"
        self.modules = packages / "clients-npm"
        self.servers = {}
        # The one of the current scenario.
        self.server = None

    def install(self):
        wanted = (HERE / "requirements.txt").read_text()
        stamp = self.venv / "installed.txt"
        if not stamp.exists() or stamp.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", self.venv], check=True)
            pip = [self.venv / "bin/python", "-m", "pip", "install", "-q", "-r"]
            subprocess.run([*pip, HERE / "requirements.txt"], check=True, timeout=INSTALL_SECONDS)
            stamp.write_text(wanted)
        wanted = (HERE / "package.json").read_text()
        self.modules.mkdir(parents=True, exist_ok=True)
        stamp = self.modules / "installed.json"
        if not stamp.exists() or stamp.read_text() != wanted:
            (self.modules / "package.json").write_text(wanted)
            npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
            subprocess.run(npm, check=True, timeout=INSTALL_SECONDS, cwd=self.modules)
            stamp.write_text(wanted)
        if shutil.which("go-sendxmpp") is None:
            sys.exit("FAILED: go-sendxmpp is missing; apt-get install go-sendxmpp")

    def environment(self, is_trusting=True):
        """For OpenSSL, Node and Go alike."""
        trusted = str(self.server.data_dir / "tls/certificate.pem") if is_trusting else "/dev/null"
        names = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
        return {**os.environ, **({name: trusted for name in names} if is_trusting else {}),
                "SSL_CERT_DIR": "/nonexistent", "PYTHONWARNINGS": "ignore",
                "HOME": str(self.server.data_dir)}

    def port(self, tls):
        return self.server.direct_port if tls == "direct" else self.server.port


class Wire:
    """Between a client and the server: a connection that can break."""

    async def open(self, port):
        self.target = port
        self.ends = set()
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def accept(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return writer.transport.abort()
        self.ends |= {writer, far_writer}
        await asyncio.gather(self.pass_on(reader, far_writer), self.pass_on(far_reader, writer))

    async def pass_on(self, reader, writer):
        try:
            while data := await reader.read(16384):
                writer.write(data)
            writer.close()
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()

    def cut(self):
        for end in self.ends:
            end.transport.abort()
        self.ends.clear()

    def close(self):
        self.server.close()
        self.cut()


class Client:
    """A program that speaks lines of JSON."""


    def __init__(self, place, user, tls):
        self.place, self.user, self.tls = place, user, tls
        self.bare = f"{user}@localhost"
        self.jid = f"{self.bare}/{self.name}"
        self.password = f"pw of {user}"
        self.events = []
        self.news = asyncio.Event()
        self.process = None
        self.port = None

    def command(self):
        raise NotImplementedError

    async def start(self, is_trusting=True):
        self.port = self.port or self.place.port(self.tls)
        self.log = self.place.server.data_dir / f"{self.name}-{self.user}.log"
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, env=self.place.environment(is_trusting),
            )
        self.reading = asyncio.create_task(self.read())

    async def read(self):
        async for line in self.process.stdout:
            self.take(line.decode())
            self.news.set()
        self.events.append({"is": "ended"})
        self.news.set()

    def take(self, line):
        self.events.append(json.loads(line))

    async def log_in(self):
        await self.start()
        event = await self.until(lambda it: it["is"] == "online", "login")
        # Bind 2 adds to the name that a client asks for.
        if not f"{event['jid']}/".startswith(f"{self.jid}/"):
            raise Failed(f"{self.jid} is called {event['jid']}")
        self.jid = event["jid"]
        return self

    async def until(self, is_it, what, may_fail=False):
        """The first event like that, which is then gone; with `may_fail`, errors before it as well."""
        deadline = time.monotonic() + STEP_SECONDS
        while True:
            for event in list(self.events):
                if is_it(event):
                    self.events.remove(event)
                    return event
                if event["is"] == "failed" and may_fail:
                    self.events.remove(event)
                elif event["is"] in ("failed", "ended"):
                    raise Failed(f"{self.jid}: {what}: {event}\n{self.log.read_text()[-2000:]}")
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), deadline - time.monotonic())
            except (asyncio.TimeoutError, ValueError):
                raise Failed(f"{self.jid}: {what}: nothing but {self.events}") from None

    def tell(self, **command):
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    async def say(self, to, body):
        self.tell(do="say", to=to, body=body)

    async def hear(self, sender, body, delayed=False):
        is_it = lambda it: it["is"] == "message" and it["body"] == body  # noqa: E731
        event = await self.until(is_it, f"{body!r} from {sender.jid}")
        if not event["from"].startswith(sender.bare):
            raise Failed(f"{body!r} is from {event['from']}")
        if event.get("delayed", delayed) != delayed:
            raise Failed(f"{body!r} is {'' if event['delayed'] else 'not '}delayed")

    async def quit(self):
        self.tell(do="quit")
        await self.end()

    async def end(self):
        """By its pid, if it does not end by itself."""
        if self.process is None:
            return
        try:
            await asyncio.wait_for(self.process.wait(), STEP_SECONDS)
        except asyncio.TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise Failed(f"{self.jid} does not end") from None
        finally:
            await self.reading


class Aioxmpp(Client):
    name = "aioxmpp"

    def command(self):
        python = self.place.venv / "bin/python"
        script = HERE / "aioxmpp_client.py"
        return [python, script, self.jid, self.password, str(self.port), self.tls]


class Xmppjs(Client):
    name = "xmppjs"

    def command(self):
        script = HERE / "xmppjs_client.mjs"
        where = [str(self.port), self.tls]
        return ["node", script, self.place.modules, self.jid, self.password, *where]


class GoSendxmpp(Client):
    """Listens in one process, and says each thing in another, as one does with it.

    COMPAT(go-sendxmpp, 0.5): a request without <query/>, as a ping is, ends the listener; see the README.
    """

    name = "go-sendxmpp"

    def arguments(self):
        options = ["-t"] if self.tls == "direct" else []
        server = f"localhost:{self.place.port(self.tls)}"
        return ["go-sendxmpp", *options, "-u", self.bare, "-p", self.password, "-j", server]

    def command(self):
        return [*self.arguments(), "-l"]

    def take(self, line):
        # 2026-01-31T12:00:00Z jid: text
        found = re.match(r"\S+ (\S+): (.*)$", line.rstrip("\n"))
        if found:
            self.events.append({"is": "message", "from": found[1], "body": found[2]})

    async def log_in(self):
        """It says nothing when it is there: another client of the account sees it come."""
        watcher = await Aioxmpp(self.place, self.user, self.tls).log_in()
        await self.start()
        await watcher.until(
            lambda it: it["is"] == "presence" and it["from"].startswith(f"{self.bare}/{self.name}."),
            f"presence of {self.bare}",
        )
        await watcher.quit()
        return self

    async def say(self, to, body):
        process = await asyncio.create_subprocess_exec(
            *self.arguments(), to, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=self.place.environment(),
        )
        output, _ = await asyncio.wait_for(process.communicate(body.encode()), STEP_SECONDS)
        if process.returncode != 0:
            raise Failed(f"{self.bare} cannot say {body!r}: {output.decode().strip()}")

    async def quit(self):
        self.process.send_signal(signal.SIGTERM)
        await self.end()


KINDS = (Aioxmpp, Xmppjs, GoSendxmpp)


def text(label):
    """Unlike that of any other run, and not plain ASCII."""
    return f"{label}: Grüße <&> '\" 🎉 {secrets.token_hex(4)}"


async def chat(place, one_kind, other_kind, tls):
    """Two clients of different makers, both ways."""
    one = await one_kind(place, "ada", tls).log_in()
    other = await other_kind(place, "bea", "direct" if tls == "starttls" else "starttls").log_in()
    for sender, hearer in ((one, other), (other, one), (one, other)):
        body = text("chat")
        await sender.say(hearer.bare, body)
        await hearer.hear(sender, body)
    await one.quit()
    await other.quit()


async def offline(place, one_kind, other_kind, tls):
    """What is said to somebody who is away is there at login, in its order."""
    one = await one_kind(place, "ada", tls).log_in()
    bodies = [text(f"offline {number}") for number in range(3)]
    other = other_kind(place, "cyd", tls)
    for body in bodies:
        await one.say(other.bare, body)
    if one_kind is not GoSendxmpp:
        # Behind the others, on the same way.
        await one.say(one.bare, mark := text("mark"))
        await one.hear(one, mark)
    await other.log_in()
    for body in bodies:
        await other.hear(one, body, delayed=True)
    await one.quit()
    await other.quit()


async def presence(place, one_kind, other_kind, tls):
    """A subscription both ways; who leaves is seen to leave, the roster is kept."""
    one = await one_kind(place, "dot", tls).log_in()
    other = await other_kind(place, "eve", tls).log_in()
    for asking, asked in ((one, other), (other, one)):
        asking.tell(do="subscribe", to=asked.bare)
        await asked.until(lambda it: it["is"] == "subscribe" and it["from"] == asking.bare, "request")
        asked.tell(do="approve", to=asking.bare)
        await asking.until(seen(asked, True), f"presence of {asked.jid}")
    await other.quit()
    await one.until(seen(other, False), f"{other.jid} leaving")
    other = await other_kind(place, "eve", tls).log_in()
    await one.until(seen(other, True), f"{other.jid} coming back")
    await other.until(seen(one, True), f"presence of {one.jid}")
    for client, contact in ((one, other), (other, one)):
        client.tell(do="roster")
        event = await client.until(lambda it: it["is"] == "roster", "roster")
        if event["items"] != {contact.bare: "both"}:
            raise Failed(f"{client.bare} has the roster {event['items']}")
    await one.quit()
    await other.quit()


def seen(client, available):
    facts = {"is": "presence", "from": client.jid, "available": available}
    return lambda it: it == facts


async def resume(place, one_kind, other_kind, tls):
    """A connection that breaks is resumed: what was said meanwhile comes, once, and the session keeps its address."""
    wire = Wire()
    one = one_kind(place, "fay", tls)
    one.port = await wire.open(place.port(tls))
    await one.log_in()
    other = await other_kind(place, "gus", tls).log_in()
    await other.say(one.jid, body := text("before"))
    await one.hear(other, body)
    wire.cut()
    # Some clients tell of the cut as an error first.
    await one.until(lambda it: it["is"] == "suspended", "end of the connection", may_fail=True)
    bodies = [text(f"meanwhile {number}") for number in range(5)]
    for body in bodies:
        await other.say(one.jid, body)
    await one.until(lambda it: it["is"] == "resumed", "resumption", may_fail=True)
    await one.say(other.bare, answer := text("answer"))
    await other.hear(one, answer)
    await other.say(one.jid, last := text("last"))
    await one.until(lambda it: it["is"] == "message" and it["body"] == last, "the last message")
    heard = [event["body"] for event in one.events if event["is"] == "message"]
    if heard != bodies:
        raise Failed(f"{heard} instead of {bodies}")
    await one.quit()
    await other.quit()
    wire.close()


async def unknown_certificate(place, kind, tls):
    """A client that does not know the server's certificate does not tell it a password."""
    client = kind(place, "hal", tls)
    await client.start(is_trusting=False)
    refusal = lambda it: it["is"] in ("failed", "ended")  # noqa: E731
    deadline = time.monotonic() + STEP_SECONDS
    while not any(map(refusal, client.events)):
        client.news.clear()
        await asyncio.wait_for(client.news.wait(), deadline - time.monotonic())
    if any(event["is"] == "online" for event in client.events):
        raise Failed(f"{client.name} takes any certificate")
    if client.process.returncode is None:
        client.process.kill()
    await client.end()


def scenarios():
    modes = itertools.cycle(("starttls", "direct"))
    for one, other in itertools.combinations(KINDS, 2):
        for tls in ("starttls", "direct"):
            yield chat, one, other, tls
    # Not to go-sendxmpp 0.5 (Debian 12): any ping ends it, that which confirms offline messages too.
    for one, other in itertools.product(KINDS, (Aioxmpp, Xmppjs)):
        yield offline, one, other, next(modes)
    yield presence, Aioxmpp, Xmppjs, "starttls"
    for one, other in ((Aioxmpp, Xmppjs), (Xmppjs, Aioxmpp)):
        for tls in ("starttls", "direct"):
            yield resume, one, other, tls
    for kind in KINDS:
        yield unknown_certificate, kind, "direct"


async def run_all(place, only):
    for scenario, *kinds, tls in scenarios():
        name = " ".join([scenario.__name__, *(kind.name for kind in kinds), tls])
        if only and not any(part in name for part in only):
            continue
        place.server = place.servers["stored"]
        if scenario is chat and GoSendxmpp in kinds:
            place.server = place.servers["received"]
        started = time.monotonic()
        try:
            await asyncio.wait_for(scenario(place, *kinds, tls), SCENARIO_SECONDS)
        except Exception as error:
            cause = error if isinstance(error, Failed) else traceback.format_exc()
            print(f"FAILED {name}: {cause}", flush=True)
            return False
        print(f"ok {name} ({time.monotonic() - started:.1f}s)", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="start this corefire")
    parser.add_argument("--only", action="append", help="scenarios with this in their name")
    parser.add_argument("--packages", type=pathlib.Path, default=HERE.parents[2] / "target")
    options = parser.parse_args()
    place = Place(options.packages.resolve())
    place.install()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("FAILED: terminated"))
    is_ok, troubles = False, []
    with tempfile.TemporaryDirectory(prefix="corefire-clients-") as directory:
        # What is acknowledged on receipt need not be confirmed by a ping, which go-sendxmpp 0.5 does not survive.
        for ack in ("stored", "received"):
            data_dir = pathlib.Path(directory) / ack
            data_dir.mkdir()
            place.servers[ack] = Corefire(options.binary, data_dir, settings=[f"storage.ack={ack}"])
        try:
            for server in place.servers.values():
                for user in USERS:
                    server.add_user(f"{user}@localhost", f"pw of {user}")
                server.start()
            is_ok = asyncio.run(run_all(place, options.only))
        finally:
            troubles = [trouble for it in place.servers.values() if (trouble := it.stop())]
        if troubles or not is_ok:
            print(*(f"FAILED shutdown: {trouble}" for trouble in troubles), sep="\n")
            print(*(server.tail() for server in place.servers.values()), sep="\n", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
