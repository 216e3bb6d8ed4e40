#!/usr/bin/env python3
"""Stock clients on three nodes: slixmpp and go-sendxmpp, each at a node of a cluster that found itself by multicast.

    run.py --binary target/debug/corefire      starts a PostgreSQL, three nodes and clients of its own, and ends them

With root, each node is in a network namespace of its own. One line `ok NAME` a scenario; exit status 1 at the first that
fails. Without slixmpp installed, its packages go into a virtual environment (`--venv`).
"""

import argparse
import asyncio
import logging
import os
import pathlib
import signal
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parent / "slixmpp")]
sys.dont_write_bytecode = True
from inside import INSIDE, NAMESPACES  # noqa: E402
from nodes import Cluster, enter  # noqa: E402
from packages import with_slixmpp  # noqa: E402
from running import run_scenarios  # noqa: E402

SCENARIO_SECONDS = 60
ALL_SECONDS = 240


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="start this corefire")
    parser.add_argument("--loopback", action="store_true", help="no namespaces, though we may make them")
    parser.add_argument("--venv", type=pathlib.Path, default=HERE.parents[2] / "target/slixmpp-venv")
    parser.add_argument("--verbose", action="store_true", help="every stanza, to standard error")
    return parser.parse_args()


async def run_all(cluster):
    import scenarios

    return await run_scenarios(scenarios.ALL, await scenarios.World.of(cluster), SCENARIO_SECONDS)


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("FAILED: terminated"))
    if INSIDE not in os.environ:
        with_slixmpp(options.venv)
        sys.exit(enter(ALL_SECONDS, options.loopback))
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.CRITICAL)
    is_ok, troubles = False, []
    with tempfile.TemporaryDirectory(prefix="nodes-") as folder:
        cluster = Cluster(options.binary, folder, os.environ[INSIDE] == NAMESPACES)
        try:
            cluster.start()
            is_ok = asyncio.run(run_all(cluster))
        finally:
            troubles = cluster.stop()
            if troubles or not is_ok:
                print(cluster.tail(), file=sys.stderr)
    for trouble in troubles:
        print(f"FAILED shutdown: {trouble}")
    if is_ok and not troubles:
        print("ok shutdown")
    sys.exit(0 if is_ok and not troubles else 1)


if __name__ == "__main__":
    main()
