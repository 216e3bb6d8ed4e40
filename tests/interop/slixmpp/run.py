#!/usr/bin/env python3
"""slixmpp against a server: real clients, real TLS, both ports.

    run.py --binary target/debug/corefire           starts a server of its own, with four shards, and ends it
    run.py --host H --port P --direct-port D --domain NAME --accounts user:password,user:password

One line `ok NAME` a scenario; exit status 1 at the first that fails. Without slixmpp installed, the packages of
requirements.txt go into a virtual environment (`--venv`) and the script runs itself from there.
"""

import argparse
import asyncio
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
SCENARIO_SECONDS = 60
START_SECONDS = 15
STOP_SECONDS = 15
# Enough pairs that the four shards do not all by chance hold both sides of each.
USERS = ("ada", "bea", "cyd", "dot", "eve", "fay", "gus", "hal")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=pathlib.Path, help="start this corefire")
    parser.add_argument("--set", action="append", default=[], help="key=value for `corefire serve`")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5222)
    parser.add_argument("--direct-port", type=int, default=5223)
    parser.add_argument("--domain", default="localhost")
    parser.add_argument("--accounts", default="", help="user:password,... an even number of them")
    parser.add_argument("--mechanism", default="SCRAM-SHA-256", help="what the clients must choose")
    parser.add_argument(
        "--peer",
        action="store_true",
        help="another server: steps are not sent ahead, missing mechanisms are skipped",
    )
    parser.add_argument("--only", action="append", help="run this scenario; may be repeated")
    parser.add_argument("--venv", type=pathlib.Path, default=HERE.parents[2] / "target/slixmpp-venv")
    parser.add_argument("--verbose", action="store_true", help="every stanza, to standard error")
    return parser.parse_args()


def with_slixmpp(venv):
    """Returns where slixmpp can be imported; else goes on in the virtual environment."""
    try:
        import slixmpp  # noqa: F401
    except ImportError:
        python = venv / "bin/python"
        if pathlib.Path(sys.prefix) == venv.resolve():
            sys.exit(f"slixmpp is missing from {venv}")
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=120)
        install = [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"]
        subprocess.run(install, check=True, timeout=300)
        os.execv(python, [python, *sys.argv])


def free_ports(count):
    """Held together, so that they differ; another process could still take one before the server does."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


class Corefire:
    """The server under test, in a data directory of its own."""

    def __init__(self, options, directory):
        self.binary = options.binary.resolve()
        self.data_dir = pathlib.Path(directory)
        self.log = self.data_dir / "serve.log"
        self.port, self.direct_port = free_ports(2)
        self.settings = [
            f'c2s.listen=["127.0.0.1:{self.port}"]',
            f'c2s.direct_tls_listen=["127.0.0.1:{self.direct_port}"]',
            "admin.listen=",
            f"node.shards={options.shards}",
            *options.set,
        ]
        self.process = None

    def add_user(self, jid, password):
        command = ["user", "add", jid, "--password", password, "--data-dir", self.data_dir]
        done = subprocess.run(
            [self.binary, *command], timeout=30, capture_output=True, text=True, cwd=self.data_dir
        )
        if done.returncode != 0:
            sys.exit(f"FAILED user add {jid}: {done.stdout}{done.stderr}")

    def start(self):
        command = [self.binary, "serve", "--data-dir", self.data_dir]
        for setting in self.settings:
            command += ["--set", setting]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.data_dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        for port in (self.port, self.direct_port):
            while not is_open(port):
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


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


async def run_scenarios(server, only):
    import scenarios

    for scenario in scenarios.ALL:
        name = scenario.__name__
        if only and name not in only:
            continue
        started = time.monotonic()
        try:
            note = await asyncio.wait_for(scenario(server), SCENARIO_SECONDS)
        except asyncio.TimeoutError:
            print(f"FAILED {name}: not done within {SCENARIO_SECONDS} s", flush=True)
            return False
        except Exception as error:  # Whatever it is, it is this scenario's failure.
            print(f"FAILED {name}: {error or type(error).__name__}", flush=True)
            traceback.print_exc()
            return False
        seconds = time.monotonic() - started
        print(f"ok {name}" + (f" ({note})" if note else f" ({seconds:.1f} s)"), flush=True)
    return True


def main():
    options = arguments()
    with_slixmpp(options.venv)
    sys.path.insert(0, str(HERE))
    sys.dont_write_bytecode = True
    from clients import Account, Server

    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.CRITICAL)
    if options.accounts:
        pairs = [entry.partition(":") for entry in options.accounts.split(",")]
        accounts = [Account(user, password) for user, _, password in pairs]
    else:
        accounts = [Account(user, f"pw of {user}") for user in USERS]
    if len(accounts) < 2 or len(accounts) % 2:
        sys.exit("--accounts wants an even number of user:password")
    server = Server(
        host=options.host,
        port=options.port,
        direct_port=options.direct_port,
        domain=options.domain,
        mechanism=options.mechanism,
        is_corefire=not options.peer,
        accounts=accounts,
    )
    # A scenario that blocks the loop itself is beyond `wait_for`.
    signal.alarm(SCENARIO_SECONDS * 5)
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("FAILED: out of time"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("FAILED: terminated"))

    if not options.binary:
        sys.exit(0 if asyncio.run(run_scenarios(server, options.only)) else 1)
    with tempfile.TemporaryDirectory(prefix="corefire-slixmpp-") as directory:
        corefire = Corefire(options, directory)
        is_ok = False
        try:
            for account in accounts:
                corefire.add_user(server.bare(account), account.password)
            corefire.start()
            server.host, server.port = "127.0.0.1", corefire.port
            server.direct_port = corefire.direct_port
            is_ok = asyncio.run(run_scenarios(server, options.only))
        finally:
            trouble = corefire.stop()
        if trouble:
            print(f"FAILED shutdown: {trouble}")
        elif is_ok:
            print("ok shutdown")
        if trouble or not is_ok:
            print(corefire.tail(), file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
