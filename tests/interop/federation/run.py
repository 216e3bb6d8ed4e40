#!/usr/bin/env python3
"""Corefire beside Prosody and ejabberd, as domains of the same small internet: a DNS server, a certificate authority, and
users of each who talk to users of the others.

    run.py --binary target/debug/corefire      two Corefires, Prosody and ejabberd, started and ended by the test
    run.py --without-corefire                  Prosody and ejabberd alone: what the test sees where nothing is ours
    run.py --binary … --only NAME…             some of the scenarios

All of it is in a network of its own, where each server has an address of the loopback, the DNS server is that of the
machine, and the records and certificates of a domain leave one way to it: certificates or dialback, STARTTLS or direct TLS.
Needs knot, prosody, ejabberd, openssl and unshare, and root or the right to be the root of a namespace; where they are
missing it says so and does nothing, but in CI. One line `ok NAME` a scenario; exit status 1 at the first that fails. Without
slixmpp installed, its packages go into a virtual environment (`--venv`).
"""

import argparse
import asyncio
import logging
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parent / "slixmpp")]
sys.dont_write_bytecode = True
import inside  # noqa: E402
from authority import Authority  # noqa: E402
from names import Names, use_them  # noqa: E402
from packages import with_slixmpp  # noqa: E402
from running import run_scenarios  # noqa: E402
from servers import DEAD, Ejabberd, Ours, Prosody  # noqa: E402

SCENARIO_SECONDS = 150
ALL_SECONDS = 420


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=pathlib.Path, help="start this corefire, twice")
    parser.add_argument("--without-corefire", action="store_true", help="others only")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="these scenarios")
    parser.add_argument("--pairs", nargs="*", default=[], metavar="A-B", help="these pairs of servers")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for configurations, data and logs, to be kept")
    parser.add_argument("--venv", type=pathlib.Path, default=HERE.parents[2] / "target/slixmpp-venv")
    parser.add_argument("--verbose", action="store_true", help="every stanza, to standard error")
    options = parser.parse_args()
    if bool(options.binary) == options.without_corefire:
        parser.error("--binary FILE or --without-corefire")
    return options


class Place:
    """Authority, names and servers, started together."""

    def __init__(self, options, folder):
        folder = pathlib.Path(folder)
        use_them(folder)
        authority = Authority(folder / "authority")
        self.names = Names(folder / "names")
        makers = {"prosody": Prosody, "ejabberd": Ejabberd}
        if options.binary:
            for label in ("core-one", "core-two"):
                makers[label] = lambda *rest: Ours(options.binary, *rest)
            pairs = ["core-one-core-two", "core-one-prosody", "core-two-ejabberd", "prosody-ejabberd"]
        else:
            makers["prosody-two"] = Prosody
            pairs = ["prosody-ejabberd", "prosody-prosody-two"]
        self.peers = {}
        for number, (label, maker) in enumerate(makers.items(), 1):
            others = [other for other in makers if other != label]
            self.peers[label] = maker(label, f"127.0.1.{number}", folder, authority, others)
            self.peers[label].tell(self.names)
        for way, address in DEAD.items():
            self.names.address(f"dead-{way.name}", address)
        for direct in (False, True):
            self.names.service("nowhere", ".", 0, direct)
        known = {f"{one}-{two}": (self.peers[one], self.peers[two]) for one in makers for two in makers if one != two}
        unknown = [pair for pair in options.pairs if pair not in known]
        if unknown:
            sys.exit(f"pairs are of {', '.join(known)}; not {', '.join(unknown)}")
        self.pairs = [known[pair] for pair in options.pairs or pairs]
        needed = [peer for peer in self.peers.values() if any(peer in pair for pair in self.pairs)]
        self.peers = {peer.label: peer for peer in needed}

    def start(self):
        self.names.start()
        for peer in self.peers.values():
            peer.spawn()
        for peer in self.peers.values():
            peer.wait_open()

    def stop(self):
        troubles = [peer.stop() for peer in self.peers.values()]
        self.names.stop()
        return [trouble for trouble in troubles if trouble]

    def tail(self):
        return "\n".join([*(peer.tail() for peer in self.peers.values()), "---- DNS", self.names.tail()])


async def run_all(place, only):
    import scenarios

    known = {scenario.__name__: scenario for scenario in scenarios.ALL}
    unknown = [name for name in only if name not in known]
    if unknown:
        sys.exit(f"scenarios are {', '.join(known)}; not {', '.join(unknown)}")
    world = scenarios.World(list(place.peers.values()), place.pairs)
    chosen = [known[name] for name in only] or scenarios.ALL
    return await run_scenarios(chosen, world, SCENARIO_SECONDS)


def what_is_lacking():
    system = "/usr/sbin:/sbin:/usr/local/sbin:" + os.environ["PATH"]
    programs = ("openssl", "prosody", "ejabberdctl", "knotd", "ip", "unshare")
    missing = [name for name in programs if not shutil.which(name, path=system)]
    if missing:
        return f"{', '.join(missing)} not installed; apt-get install openssl prosody ejabberd knot iproute2 util-linux"
    if inside.way_in(as_user=True) is None:
        return "no network of its own; that wants root, or a system that lets users have namespaces"
    return None


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("FAILED: terminated"))
    if inside.INSIDE not in os.environ:
        lacking = what_is_lacking()
        if lacking:
            # In CI all of it must be there.
            print(f"{'FAILED' if 'CI' in os.environ else 'skipped'}: {lacking}")
            sys.exit(1 if "CI" in os.environ else 0)
        with_slixmpp(options.venv)
        sys.exit(inside.enter(inside.way_in(as_user=True), ALL_SECONDS))
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.CRITICAL)
    began = time.monotonic()
    is_ok, troubles, place = False, [], None
    with tempfile.TemporaryDirectory(prefix="federation-") as folder:
        if options.keep:
            folder = options.keep.resolve()
            folder.mkdir(parents=True)
        try:
            place = Place(options, folder)
            place.start()
            print(f"   {', '.join(place.peers)}: started ({time.monotonic() - began:.1f} s)", flush=True)
            is_ok = asyncio.run(run_all(place, options.only))
        finally:
            troubles = place.stop() if place else []
            if place and (troubles or not is_ok):
                print(place.tail(), file=sys.stderr)
    for trouble in troubles:
        print(f"FAILED shutdown: {trouble}")
    if is_ok and not troubles:
        print("ok shutdown")
    sys.exit(0 if is_ok and not troubles else 1)


if __name__ == "__main__":
    main()
