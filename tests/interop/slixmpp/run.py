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
import pathlib
import signal
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from packages import with_slixmpp  # noqa: E402
from running import run_scenarios  # noqa: E402
from server import Corefire  # noqa: E402

SCENARIO_SECONDS = 60
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
    parser.add_argument("--mechanism", default="SCRAM-SHA-512", help="what the clients must choose")
    parser.add_argument(
        "--peer",
        action="store_true",
        help="another server: steps are not sent ahead, missing mechanisms are skipped",
    )
    parser.add_argument("--only", action="append", help="run this scenario; may be repeated")
    parser.add_argument("--venv", type=pathlib.Path, default=HERE.parents[2] / "target/slixmpp-venv")
    parser.add_argument("--verbose", action="store_true", help="every stanza, to standard error")
    return parser.parse_args()


async def run_all(server, only):
    import scenarios

    wanted = [scenario for scenario in scenarios.ALL if not only or scenario.__name__ in only]
    return await run_scenarios(wanted, server, SCENARIO_SECONDS)


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
        sys.exit(0 if asyncio.run(run_all(server, options.only)) else 1)
    with tempfile.TemporaryDirectory(prefix="corefire-slixmpp-") as directory:
        server.component, server.secret = f"bot.{options.domain}", "hush"
        components = [(server.component, server.secret)]
        corefire = Corefire(options.binary, directory, options.shards, options.set, components)
        is_ok = False
        try:
            for account in accounts:
                corefire.add_user(server.bare(account), account.password)
            corefire.start()
            server.host, server.port = "127.0.0.1", corefire.port
            server.direct_port = corefire.direct_port
            server.component_port = corefire.component_port
            is_ok = asyncio.run(run_all(server, options.only))
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
