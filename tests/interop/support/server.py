"""A corefire of its own for tests with clients of others: free ports, a data directory, ended by its pid."""

import pathlib
import signal
import socket
import subprocess
import sys
import time

START_SECONDS = 15
STOP_SECONDS = 15


def free_ports(count, host="127.0.0.1"):
    """Held together, so that they differ; another process could still take one before the server does."""
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


class Corefire:
    """The server under test, in a data directory of its own.

    `ports` of `host` for streams, direct TLS and components: free ones unless it is not ours to look. `within` is a command
    that runs another in the place where it is to be.
    """

    def __init__(
        self, binary, directory, shards=4, settings=(), components=(), host="127.0.0.1", ports=None, within=()
    ):
        self.binary = pathlib.Path(binary).resolve()
        self.data_dir = pathlib.Path(directory)
        self.log = self.data_dir / "serve.log"
        self.host, self.within = host, list(within)
        self.port, self.direct_port, self.component_port = ports or free_ports(3, host)
        self.settings = [
            f'c2s.listen=["{host}:{self.port}"]',
            f'c2s.direct_tls_listen=["{host}:{self.direct_port}"]',
            "admin.listen=",
            f"node.shards={shards}",
            *settings,
        ]
        # External components, each a domain and its secret.
        if components:
            self.settings.append(f'components.listen=["{host}:{self.component_port}"]')
        for domain, secret in components:
            self.settings.append(f'components.secrets."{domain}"={secret}')
        self.process = None

    def attempt(self, *arguments):
        command = [self.binary, *arguments, "--data-dir", self.data_dir]
        return subprocess.run(command, timeout=30, capture_output=True, text=True, cwd=self.data_dir)

    def run(self, *arguments):
        """What a command of the program prints; it must not fail."""
        done = self.attempt(*arguments)
        if done.returncode != 0:
            sys.exit(f"FAILED {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}")
        return done.stdout

    def add_user(self, jid, password):
        self.run("user", "add", jid, "--password", password)

    def start(self):
        self.spawn()
        self.wait_open()

    def spawn(self):
        command = [*self.within, self.binary, "serve", "--data-dir", self.data_dir]
        for setting in self.settings:
            command += ["--set", setting]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.data_dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_open(self):
        deadline = time.monotonic() + START_SECONDS
        for port in (self.port, self.direct_port):
            while not is_open(self.host, port):
                if self.process.poll() is not None:
                    sys.exit(f"FAILED start: exit status {self.process.returncode}\n{self.tail()}")
                if time.monotonic() > deadline:
                    sys.exit(f"FAILED start: port {port} is not open\n{self.tail()}")
                time.sleep(0.02)

    def stop(self):
        """By its pid. Gives what is wrong with the way it ended, if anything."""
        if self.process is None or self.process.poll() is not None:
            return "the server had ended by itself" if self.process else None
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"still there {STOP_SECONDS} s after SIGTERM"
        return None if status == 0 else f"exit status {status} after SIGTERM"

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


def is_open(host, port):
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError:
        return False
