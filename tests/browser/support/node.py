"""A node of the tree's own build on loopback, and clients that talk to one another for as long as a check looks."""

import base64
import contextlib
import json
import pathlib
import select
import signal
import socket
import subprocess
import threading
import time
from xml.sax.saxutils import escape, quoteattr

START_SECONDS = 60
STOP_SECONDS = 20
PASSWORD = "secret"
# So that no check that hangs leaves clients talking for ever.
TALK_SECONDS = 150


def free_port():
    """Another process could still take it before the node does."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


class Node:
    """Runs until the `with` is over."""

    def __init__(self, program, folder, settings=()):
        self.program, self.folder = program, pathlib.Path(folder)
        self.data = self.folder / "data"
        self.config = self.folder / "corefire.toml"
        self.config.write_text(
            'domains = ["chat.example"]\n[node]\nname = "node-1"\nshards = 2\n'
            f"data_dir = {json.dumps(str(self.data))}\n"
            '[c2s]\nlisten = ["127.0.0.1:0"]\ndirect_tls_listen = []\ntls = "optional"\n'
            '[admin]\nlisten = "127.0.0.1:0"\n[auth]\nscram_iterations = 4096\n'
       )
        self.settings = [part for setting in settings for part in ("--set", setting)]
        self.process = None

    def run(self, *arguments):
        command = [self.program, *arguments, "--config", self.config]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=START_SECONDS).stdout

    def user(self, name):
        self.run("user", "add", f"{name}@chat.example", "--password", PASSWORD)

    def start(self):
        log = open(self.folder / "node.log", "a")
        self.process = subprocess.Popen([self.program, "serve", "--config", self.config, *self.settings], stderr=log)
        ends = time.monotonic() + START_SECONDS
        while True:
            try:
                status = json.loads(self.run("status", "--json"))
                break
            except subprocess.CalledProcessError:
                if time.monotonic() > ends or self.process.poll() is not None:
                    raise
                time.sleep(0.05)
        listeners = {one["key"]: one["address"] for one in status["listeners"]}
        self.admin = listeners["admin.listen"]
        host, port = listeners["c2s.listen"].rsplit(":", 1)
        self.c2s = (host, int(port))

    def token(self):
        return (self.data / "admin-token").read_text().strip()

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Client:
    """PLAIN on a plain stream; reads only what it must."""

    def __init__(self, node, name, resource):
        self.socket = socket.create_connection(node.c2s, timeout=20)
        self.heard = b""
        self.open()
        self.expect(b"</stream:features>")
        secret = base64.b64encode(f"\0{name}\0{PASSWORD}".encode()).decode()
        self.say(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>")
        self.expect(b"<success")
        self.open()
        self.expect(b"</stream:features>")
        bind = f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{escape(resource)}</resource></bind>"
        self.say(f"<iq type='set' id='bind'>{bind}</iq><presence/>")
        self.expect(b"bind")

    def open(self):
        self.say("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
                 "to='chat.example' version='1.0'>")

    def say(self, text):
        self.socket.sendall(text.encode())

    def expect(self, words):
        while words not in self.heard:
            more = self.socket.recv(65536)
            if not more:
                raise OSError(f"the stream ended before {words}: {self.heard[-500:]}")
            self.heard += more
        self.heard = b""

    def swallow(self):
        while select.select([self.socket], [], [], 0)[0]:
            if not self.socket.recv(1 << 20):
                raise OSError("the stream ended")

    def chat(self, to, body, number):
        self.say(f"<message to={quoteattr(to)} type='chat' id='m{number}'><body>{escape(body)}</body></message>")


@contextlib.contextmanager
def talk(node, plan):
    """Lets clients talk. `plan`: (name, resource, to, messages a second, bytes of each)."""
    over = threading.Event()
    clients = [(Client(node, name, resource), to, rate, "x" * size) for name, resource, to, rate, size in plan]

    def chatter():
        began = time.monotonic()
        sent = [0] * len(clients)
        with contextlib.suppress(OSError):
            while not over.wait(0.02) and time.monotonic() - began < TALK_SECONDS:
                for place, (client, to, rate, body) in enumerate(clients):
                    client.swallow()
                    while sent[place] < (time.monotonic() - began) * rate:
                        client.chat(to, body, sent[place])
                        sent[place] += 1

    thread = threading.Thread(target=chatter, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for client, *_ in clients:
            client.socket.close()
