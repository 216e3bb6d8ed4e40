#!/usr/bin/env python3
"""Pages that people open, in Chromium without a window: the load tool's report, and a node's admin page, alone and in a
cluster.

    run.py                          all checks
    run.py --only report            one of them
    run.py --shots FOLDER           and pictures of the pages, to be looked at

A check is a function below, which makes what is looked at, and `NAME.mjs`, which looks. One line `ok NAME` a check; exit
status 1 at the first that fails. playwright-core goes into a folder below `--packages` from npm; Chromium is Debian's.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from support.node import Node, free_port, talk

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
INSTALL_SECONDS = 300
CHECK_SECONDS = 180


class Place:
    """Where the packages, the browser and the pictures are."""

    def __init__(self, packages, shots):
        self.modules = packages / "browser-npm"
        self.shots = shots
        names = ("chromium", "chromium-browser", "google-chrome")
        self.chromium = next(filter(None, map(shutil.which, names)), None)
        if self.chromium is None:
            sys.exit("FAILED: Chromium is missing; apt-get install chromium")

    def install(self):
        wanted = (HERE / "package.json").read_text()
        self.modules.mkdir(parents=True, exist_ok=True)
        stamp = self.modules / "installed.json"
        if not stamp.exists() or stamp.read_text() != wanted:
            (self.modules / "package.json").write_text(wanted)
            npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
            subprocess.run(npm, check=True, timeout=INSTALL_SECONDS, cwd=self.modules)
            stamp.write_text(wanted)

    def look(self, name, **environment):
        """Runs `NAME.mjs` with what it needs to know."""
        own = {"PACKAGES": str(self.modules), "CHROMIUM": self.chromium}
        if self.shots is not None:
            own["SHOTS"] = str(self.shots)
        subprocess.run(["node", HERE / f"{name}.mjs"], check=True, timeout=CHECK_SECONDS,
                       env={**os.environ, **own, **environment})


def report(place):
    """The report of a run that has all that a report can show."""
    with tempfile.TemporaryDirectory(prefix="corefire-report-") as folder:
        make = ["cargo", "run", "--quiet", "-p", "corefire-load", "--example", "artefacts", "--", folder]
        subprocess.run(make, check=True, cwd=ROOT)
        place.look("report", REPORTS=folder)


def admin(place):
    """The page of a node whose clients talk; one of them has chosen a resource that would like to be markup."""
    subprocess.run(["cargo", "build", "--quiet", "--bin", "corefire"], check=True, cwd=ROOT)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    with tempfile.TemporaryDirectory(prefix="corefire-admin-") as folder, Node(target / "debug" / "corefire", folder) as node:
        for name in ("alice", "bob", "carol", "dave"):
            node.user(name)
        node.start()
        plan = [
            ("alice", "<img src=x onerror=alert(1)>", "bob@chat.example", 120, 200),
            ("bob", "phone", "alice@chat.example", 60, 100),
            ("carol", "desk", "dave@chat.example", 8, 6000),
            ("dave", "tab \u0627\u0644\u0633", "nobody@chat.example", 3, 50),
        ]
        with talk(node, plan):
            place.look("admin", ADMIN=node.admin, TOKEN=node.token())


def cluster(place):
    """The page of a node in a cluster of three, on a PostgreSQL of their own; one of them is killed while it is shown."""
    if "COREFIRE_POSTGRES" not in os.environ:
        again = [ROOT / "tools/with-postgres", "-c", "max_connections=100", sys.executable, HERE / "run.py",
                 "--only", "cluster", "--packages", place.modules.parent]
        if place.shots is not None:
            again += ["--shots", place.shots]
        subprocess.run(again, check=True, timeout=2 * CHECK_SECONDS)
        return
    subprocess.run(["cargo", "build", "--quiet", "--bin", "corefire"], check=True, cwd=ROOT)
    program = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/corefire"
    with tempfile.TemporaryDirectory(prefix="corefire-cluster-") as folder, contextlib.ExitStack() as nodes:
        secret, group = pathlib.Path(folder) / "secret", free_port()
        subprocess.run([program, "cluster", "init", secret], check=True, stdout=subprocess.DEVNULL)
        running = []
        for name in ("n1", "n2", "n3"):
            home = pathlib.Path(folder) / name
            home.mkdir()
            running.append(nodes.enter_context(Node(program, home, [
                f"node.name={name}", f"storage.url={os.environ['COREFIRE_POSTGRES']}", "cluster.enabled=true",
                f"cluster.secret_file={secret}", f"cluster.bind=127.0.0.1:{free_port()}",
                f"cluster.multicast.group=239.192.0.78:{group}", "cluster.multicast.interface=127.0.0.1",
            ])))
            running[-1].start()
        first, second, victim = running
        people = [f"user{number}" for number in range(6)]
        for name in people:
            first.user(name)
        # Wherever their accounts are, some of this goes from node to node.
        plans = [[(name, "r", f"{people[5 - at]}@chat.example", 20, 200) for at, name in enumerate(people)][half::2] for half in (0, 1)]
        with talk(first, plans[0]), talk(second, plans[1]):
            place.look("cluster", ADMIN=first.admin, TOKEN=first.token(), VICTIM=str(victim.process.pid))


CHECKS = {"report": report, "admin": admin, "cluster": cluster}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(CHECKS), help="one check")
    parser.add_argument("--packages", type=pathlib.Path, default=ROOT / "target", help="where packages go")
    parser.add_argument("--shots", type=pathlib.Path, help="folder for pictures")
    options = parser.parse_args()
    if options.shots is not None:
        options.shots.mkdir(parents=True, exist_ok=True)
        options.shots = options.shots.resolve()
    place = Place(options.packages.resolve(), options.shots)
    place.install()
    for name, check in CHECKS.items():
        if options.only in (None, name):
            try:
                check(place)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                sys.exit(f"FAILED {name}: {error}")


if __name__ == "__main__":
    main()
