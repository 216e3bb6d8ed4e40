"""The names of the place: a real DNS server (Knot DNS) with a zone that the test writes, and a resolver for all who are
inside."""

import pathlib
import shutil
import socket
import subprocess
import time

ADDRESS = "127.0.0.53"
ZONE = "fed.example"
START_SECONDS = 10

CONFIG = """
server:
  listen: {address}@53
  rundir: {folder}/run
  user: root:root
database:
  storage: {folder}
log:
  - target: {folder}/knot.log
    any: info
zone:
  - domain: {zone}
    storage: {folder}
    file: zone
    journal-content: none
    semantic-checks: on
"""

# Answers are kept for two seconds, "there is none" for one.
TOP = """$ORIGIN {zone}.
$TTL 2
@ SOA ns admin 1 60 60 600 1
@ NS ns
ns A {address}
"""


class Names:
    """The zone, and who serves it. Records are lines of a zone file; names are relative to the zone."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        (self.folder / "run").mkdir()
        self.records = []
        self.process = None

    def add(self, name, kind, value):
        self.records.append(f"{name} {kind} {value}")

    def address(self, name, address):
        self.add(name, "A", address)

    def service(self, domain, target, port, direct, priority=0, weight=0):
        service = "_xmpps-server" if direct else "_xmpp-server"
        self.add(f"{service}._tcp.{domain}", "SRV", f"{priority} {weight} {port} {target}")

    def start(self):
        program = shutil.which("knotd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if program is None:
            raise SystemExit("FAILED: no DNS server; apt-get install knot knot-dnsutils")
        text = TOP.format(zone=ZONE, address=ADDRESS) + "\n".join(self.records) + "\n"
        (self.folder / "zone").write_text(text)
        config = self.folder / "knot.conf"
        config.write_text(CONFIG.format(folder=self.folder, address=ADDRESS, zone=ZONE))
        with (self.folder / "out.log").open("wb") as out:
            self.process = subprocess.Popen(
                [program, "-c", config], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"FAILED: the DNS server does not answer\n{self.tail()}")
            time.sleep(0.05)

    def answers(self):
        """Whether it knows its own name."""
        query = b"\0\7\1\0\0\1\0\0\0\0\0\0" + b"".join(
            bytes([len(label)]) + label.encode() for label in ["ns", *ZONE.split("."), ""]
        ) + b"\0\1\0\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(0.2)
            try:
                asking.sendto(query, (ADDRESS, 53))
                answer = asking.recv(512)
            except OSError:
                return False
        # Its id, no error, one answer.
        return answer[:2] == b"\0\7" and answer[3] & 15 == 0 and answer[6:8] == b"\0\1"

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def tail(self):
        logs = [self.folder / "out.log", self.folder / "knot.log"]
        return "".join(log.read_text(errors="replace")[-3000:] for log in logs if log.exists())


def use_them(folder):
    """From here on, all who are inside ask that server, whatever the machine does: for them only."""
    folder = pathlib.Path(folder)
    mounts = {
        "/etc/resolv.conf": f"nameserver {ADDRESS}\noptions timeout:1 attempts:2\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    }
    for path, text in mounts.items():
        own = folder / pathlib.Path(path).name
        own.write_text(text)
        if pathlib.Path(path).exists():
            run(["mount", "--bind", own, path])
    run(["ip", "link", "set", "lo", "up"])


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"FAILED {' '.join(map(str, command))}: {done.stderr}")
