"""Three nodes of one domain over one PostgreSQL, which are told of no address but their own.

Each is in a network namespace with a cable to one bridge, where the clients and nothing else are; without root, on
addresses of the loopback. `enter` starts this program again where all of it goes with it, however it ends.
"""

import json
import os
import pathlib
import secrets
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import inside  # noqa: E402
from server import Corefire, free_ports  # noqa: E402

NODES = 3
PARTITIONS = 4096
SETTLE_SECONDS = 30
GROUP = "239.192.0.77"
PORTS = (5222, 5223, 5347)
LINK_PORT = 7070


def enter(seconds, loopback):
    """Runs this program inside, beside a PostgreSQL of its own, for so long at most. Gives its exit status."""
    way = None if loopback else inside.way_in()
    if way is None:
        print("   without namespaces of their own: on addresses of the loopback", flush=True)
    return inside.enter(way, seconds, [HERE.parents[2] / "tools/with-postgres", "-c", "max_connections=100"])


def ip(arguments):
    done = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"FAILED ip {arguments}: {done.stderr}")


def lay_cables():
    """The nodes' at 10.77.0.1 to 3, the clients' at 10.77.0.254."""
    ip("link set lo up")
    ip("link add bridge type bridge mcast_snooping 0")
    ip("addr add 10.77.0.254/24 dev bridge")
    ip("link set bridge up")
    for node in range(1, NODES + 1):
        ip(f"netns add node{node}")
        ip(f"link add port{node} type veth peer name eth0 netns node{node}")
        ip(f"link set port{node} master bridge up")
        ip(f"-n node{node} link set lo up")
        ip(f"-n node{node} addr add 10.77.0.{node}/24 dev eth0")
        ip(f"-n node{node} link set eth0 up")


class Node(Corefire):
    def __init__(self, binary, directory, number, is_apart, secret, group_port):
        self.name = f"n{number}"
        directory = pathlib.Path(directory) / self.name
        directory.mkdir()
        host = f"10.77.0.{number}" if is_apart else f"127.0.0.{number + 1}"
        link = LINK_PORT if is_apart else free_ports(1, host)[0]
        self.link = f"{host}:{link}"
        super().__init__(
            binary,
            directory,
            shards=2,
            host=host,
            ports=PORTS if is_apart else None,
            within=["ip", "netns", "exec", f"node{number}"] if is_apart else [],
        )
        self.clients = [f"{host}:{self.port}"]
        # All clients are at one address; and of another node it knows nothing here but the group.
        self.settings += [
            f"node.name={self.name}",
            f"storage.url={os.environ['COREFIRE_POSTGRES']}",
            'limits.exempt=["10.77.0.0/24", "127.0.0.0/8"]',
            "cluster.enabled=true",
            f"cluster.bind={self.link}",
            f"cluster.secret_file={secret}",
            f"cluster.clients={json.dumps(self.clients)}",
            f"cluster.multicast.group={GROUP}:{group_port}",
            f"cluster.multicast.interface={host if is_apart else '127.0.0.1'}",
        ]

    def status(self):
        """None while it starts."""
        done = self.attempt("cluster", "status", "--json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def whereis(self, jid):
        return json.loads(self.run("whereis", jid, "--json"))


class Cluster:
    """The nodes, started all at once."""

    def __init__(self, binary, folder, is_apart):
        if is_apart:
            lay_cables()
        group_port = LINK_PORT if is_apart else free_ports(1)[0]
        secret = pathlib.Path(folder) / "secret"
        secret.write_text(secrets.token_urlsafe(48))
        secret.chmod(0o600)
        self.nodes = [
            Node(binary, folder, number, is_apart, secret, group_port) for number in range(1, NODES + 1)
        ]

    def start(self, nodes=None):
        nodes = nodes or self.nodes
        for node in nodes:
            node.spawn()
        for node in nodes:
            node.wait_open()

    def settle(self, members):
        """Until each of these nodes has them, and no other, for members, and all that is theirs; gives what each says."""
        deadline = time.monotonic() + SETTLE_SECONDS
        names = sorted(node.name for node in members)
        while True:
            views = [node.status() for node in members]
            if all(is_settled(view, names) for view in views) and len({view["epoch"] for view in views}) == 1:
                return views
            ended = [node.name for node in members if node.process.poll() is not None]
            if ended:
                sys.exit(f"FAILED: these nodes have ended: {ended}")
            if time.monotonic() > deadline:
                sys.exit(f"FAILED: the nodes do not come together: {json.dumps(views, indent=1)}")
            time.sleep(0.05)

    def stop(self):
        """Gives what is wrong with the way they ended."""
        troubles = []
        for node in self.nodes:
            if trouble := node.stop():
                troubles.append(f"{node.name}: {trouble}")
        return troubles

    def tail(self):
        return "\n".join(f"---- {node.name}\n{node.tail()}" for node in self.nodes if node.log.exists())


def is_settled(view, names):
    if view is None:
        return False
    members = [node for node in view["nodes"] if node["is_member"]]
    return (
        sorted(node["name"] for node in members) == names
        and view["is_settled"]
        and view["has_lease"]
        and all(node["settled_epoch"] == view["epoch"] for node in members)
        and all(node["health"] == "this" or (node["link"] or {}).get("rtt_us") for node in members)
    )
