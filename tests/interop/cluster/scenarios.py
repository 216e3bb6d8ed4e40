"""What clients of others see of a cluster, and what its operator is told of it at each node.

Nine accounts: for each node as the owner and each node as the place of the socket, one. So a message between two of them
takes every way that there is between nodes.
"""

import asyncio
import itertools
import json
import os
import secrets

from clients import STEP_SECONDS, Account, Client, Server, check, within
from nodes import NODES, PARTITIONS

DOMAIN = "localhost"
MESSAGES = 3
PAGE = 10


class Person(Client):
    """Knows which of the others are there now."""

    def __init__(self, server, account, resource, tls):
        super().__init__(server, account, resource, tls)
        self.present = {}
        self.add_event_handler("presence_available", lambda it: self._seen(it, True))
        self.add_event_handler("presence_unavailable", lambda it: self._seen(it, False))

    def _seen(self, presence, is_there):
        self.present[presence["from"].full] = is_there
        self.changed.set()

    async def sees(self, other, is_there):
        full = other.boundjid.full
        state = "there" if is_there else "gone"
        await self.until(lambda: self.present.get(full) is is_there, f"{full} is {state}")

    def heard_from(self, other):
        return [it["body"] for it in self.received if it["from"].bare == other.bare]


class World:
    """The cluster, and who uses it."""

    @classmethod
    async def of(cls, cluster):
        world = cls()
        world.cluster, world.nodes = cluster, cluster.nodes
        world.views = cluster.settle(world.nodes)
        # By owner and socket.
        world.accounts = {}
        for owner, socket in itertools.product(range(NODES), repeat=2):
            user = world.user(owner, f"user{owner}{socket}")
            account = Account(user, f"pw of {user}")
            # By another node than either.
            world.nodes[(socket + 1) % NODES].add_user(f"{user}@{DOMAIN}", account.password)
            world.accounts[owner, socket] = account
        world.people = {}
        return world

    def user(self, owner, prefix):
        """A name whose account this node owns, by the map of the first."""
        names = (f"{prefix}{number}" for number in itertools.count())
        place = (name for name in names if self.owner(self.nodes[0], name) == owner)
        return next(place)

    def owner(self, asked, user):
        name = asked.whereis(f"{user}@{DOMAIN}")["node"]
        return [node.name for node in self.nodes].index(name)

    def server(self, at):
        node = self.nodes[at]
        return Server(
            host=node.host, port=node.port, direct_port=node.direct_port, domain=DOMAIN,
            mechanism="SCRAM-SHA-512", is_corefire=True, accounts=[],
        )

    def client(self, account, at, resource=None):
        tls = ("starttls", "direct")[at % 2]
        return Person(self.server(at), account, resource or f"at-{self.nodes[at].name}", tls)


async def the_nodes_found_each_other(world):
    """Each tells the same of the cluster, and it is so: no node was told the address of another."""
    nodes = world.nodes
    for asked, view in zip(nodes, world.views):
        said = f"cluster status of {asked.name}"
        check(view["node"] == asked.name, f"{said}: it is called {view['node']}")
        check(view["waiting"] is None, f"{said}: it waits: {view['waiting']}")
        check(not view["refused"], f"{said}: refused: {view['refused']}")
        check(view["nodes"] == sorted(view["nodes"], key=lambda one: one["id"]), f"{said}: by id")
        check(len({one["id"] for one in view["nodes"]}) == NODES, f"{said}: ids of their own")
        check(sum(one["partitions"] for one in view["nodes"]) == PARTITIONS, f"{said}: all partitions")
        for node, told in zip(nodes, sorted(view["nodes"], key=lambda one: one["name"])):
            is_self = node is asked
            wanted = {
                "name": node.name, "address": node.link, "clients": node.clients, "state": "member",
                "is_member": True, "weight": 100, "shards": 2, "health": "this" if is_self else "alive",
            }
            for key, value in wanted.items():
                check(told[key] == value, f"{said}: {key} of {node.name} is {told[key]}, not {value}")
            check(0 < told["lease_ms"] <= 3000, f"{said}: the lease of {node.name}: {told['lease_ms']} ms")
            share = told["partitions"] * NODES / PARTITIONS
            check(0.8 < share < 1.2, f"{said}: {node.name} has {told['partitions']} partitions")
            link = told["link"]
            check((link is None) == is_self, f"{said}: a link to {node.name}: {link}")
            if link:
                check(link["state"] == "up", f"{said}: the link to {node.name} is {link['state']}")
                check(0 < link["rtt_us"] < 1_000_000, f"{said}: round trip to {node.name}: {link}")
                # It is one machine.
                ahead = abs(link["clock_ahead_us"])
                check(ahead <= link["rtt_us"] + 50_000, f"{said}: the clock of {node.name} is off: {link}")
    same = ("id", "incarnation", "partitions", "version", "settled_epoch")
    facts = [[[one[key] for key in same] for one in view["nodes"]] for view in world.views]
    check(facts[0] == facts[1] == facts[2], f"the nodes tell different things: {facts}")
    maps = {node.run("cluster", "map", "--json") for node in nodes}
    check(len(maps) == 1, f"the nodes have different maps: {maps}")
    for (owner, _), account in world.accounts.items():
        owners = {world.owner(node, account.user) for node in nodes}
        check(owners == {owner}, f"{account.user} is owned by {owners}, not {owner}")


async def all_chat_with_all(world):
    """Rosters, presence and messages of nine people, each with each, whoever owns them and wherever they sit."""
    for (owner, socket), account in world.accounts.items():
        world.people[owner, socket] = await world.client(account, socket).login()
    people = list(world.people.values())
    for one, two in itertools.combinations(people, 2):
        one.send_presence_subscription(two.bare)
    pairs = list(itertools.permutations(people, 2))
    for one, two in pairs:
        await one.until(
            lambda: one.client_roster[two.bare]["subscription"] == "both", f"subscription with {two.bare}"
        )
        await one.sees(two, True)
    said = {pair: [f"{pair[0].bare} to {pair[1].bare}: {number}" for number in range(MESSAGES)] for pair in pairs}
    for (one, two), bodies in said.items():
        one.say(two.boundjid.full, bodies[:1])
        one.say(two.bare, bodies[1:])
    for (one, two), bodies in said.items():
        await two.until(lambda: len(two.heard_from(one)) >= len(bodies), f"messages of {one.bare}")
    for person in people:
        await person.ping_server()
    for (one, two), bodies in said.items():
        heard = two.heard_from(one)
        check(heard == bodies, f"{two.boundjid} heard {heard} of {one.bare}, wanted {bodies}")


async def an_operator_asks_at_any_node(world):
    """Each tells the same of all sessions: who has them, and where their sockets are."""
    wanted = {
        (person.boundjid.full, world.nodes[owner].name, world.nodes[socket].name)
        for (owner, socket), person in world.people.items()
    }
    for asked in world.nodes:
        listed = [json.loads(line) for line in asked.run("session", "list", "--json").splitlines()]
        found = [(one["jid"], one["node"], one["socket"]) for one in listed]
        check(sorted(found) == sorted(wanted), f"session list at {asked.name}: {found}, not {wanted}")
        for full, owner, socket in wanted:
            told = asked.whereis(full)
            check((told["node"], told["kind"], told["silent"]) == (owner, "account", []), f"{told}")
            sockets = [(one["resource"], one["socket"]) for one in told["sessions"]]
            check(sockets == [(full.partition("/")[2], socket)], f"whereis at {asked.name}: {told}")


async def presence_comes_and_goes(world):
    """One logs out, comes again at another node, and is cut off: the others see each of it once it happened."""
    for owner in range(NODES):
        at = (owner, (owner + 1) % NODES)
        account, one = world.accounts[at], world.people[at]
        others = [person for person in world.people.values() if person is not one]
        await one.logout()
        for other in others:
            await other.sees(one, False)
        elsewhere = (owner + 2) % NODES
        one = await world.client(account, elsewhere, "on-the-way").login()
        for other in others:
            await other.sees(one, True)
            await one.sees(other, True)
        await one.cut()
        for other in others:
            await other.sees(one, False)
        one = world.people[at] = await world.client(account, at[1]).login()
        for other in others:
            await other.sees(one, True)


async def one_archive_is_paged_at_each_node(world):
    """An account's archive reads the same at each node; and goes on at one node where it was left at another."""

    async def page(client, after):
        rsm = {"max": PAGE, **({"after": after} if after else {})}
        query = client.plugin["xep_0313"].retrieve(rsm=rsm)
        answer = (await within(query, f"{client.boundjid}: a page behind {after}"))["mam"]
        entries = []
        for result in answer["results"]:
            kept = result["mam_result"]
            stanza = kept["forwarded"]["stanza"]
            stamp = str(kept["forwarded"]["delay"]["stamp"])
            entries.append((kept["id"], stanza["from"].bare, stanza["to"].bare, stanza["body"], stamp))
        return entries

    async def read(clients):
        """All of it, each page by the next client."""
        entries = []
        for client in itertools.cycle(clients):
            found = await page(client, entries[-1][0] if entries else None)
            entries += found
            if len(found) < PAGE:
                return entries

    for owner in range(NODES):
        account, own = world.accounts[owner, owner], world.people[owner, owner]
        readers = [await world.client(account, at, f"reads-at-{at}").login(presence=False) for at in range(NODES)]
        archives = [await read([reader]) for reader in readers]
        archives.append(await read(readers))
        first = archives[0]
        for archive in archives[1:]:
            check(archive == first, f"{own.bare}: archives differ: {first} and {archive}")
        others = [person for person in world.people.values() if person is not own]
        for other in others:
            for sender, to in ((own, other), (other, own)):
                wanted = [f"{sender.bare} to {to.bare}: {number}" for number in range(MESSAGES)]
                kept = [body for _, who, whom, body, _ in first if (who, whom) == (sender.bare, to.bare)]
                check(kept == wanted, f"{own.bare} keeps {kept}, wanted {wanted}")
        check(len(first) == 2 * MESSAGES * len(others), f"{own.bare} keeps {len(first)} messages")
        check(len({entry[0] for entry in first}) == len(first), f"{own.bare}: ids come twice")
        for reader in readers:
            await reader.logout()


async def another_maker_s_client_writes_across(world):
    """go-sendxmpp at each node, to someone at each of the others."""
    for at, to in itertools.permutations(range(NODES), 2):
        account, listener = world.accounts[to, at], world.people[at, to]
        body = f"go {secrets.token_hex(3)}"
        node = world.nodes[at]
        process = await asyncio.create_subprocess_exec(
            "go-sendxmpp", "-n", "-u", f"{account.user}@{DOMAIN}", "-p", account.password,
            "-j", f"{node.host}:{node.port}", listener.bare,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "HOME": str(node.data_dir)},
        )
        output, _ = await asyncio.wait_for(process.communicate(body.encode()), STEP_SECONDS)
        check(process.returncode == 0, f"go-sendxmpp at {node.name}: {output.decode().strip()}")
        await listener.until(lambda: body in listener.bodies(), f"{body} from {node.name}")


async def a_node_goes_and_comes(world):
    """Those that stay tell of it, and have what was its own; when it is there again, all is as before."""
    *stay, leaves = world.nodes
    # Its people and those whose sessions it has log out first: how such go on is for tests/cluster.
    for person in world.people.values():
        await person.logout()
    trouble = leaves.stop()
    check(trouble is None, f"{leaves.name}: {trouble}")
    for view in world.cluster.settle(stay):
        told = {one["name"]: one for one in view["nodes"]}
        gone = told.get(leaves.name, {"is_member": False, "state": "left", "partitions": 0})
        check((gone["is_member"], gone["state"], gone["partitions"]) == (False, "left", 0), f"{gone}")
        check(sum(one["partitions"] for one in told.values()) == PARTITIONS, "who stays has all partitions")
        check(any(leaves.name in event["what"] for event in view["events"]), f"it is told: {view['events']}")
    world.cluster.start([leaves])
    epochs = [view["epoch"] for view in world.views]
    world.views = world.cluster.settle(world.nodes)
    check(all(new["epoch"] > old for new, old in zip(world.views, epochs)), "the epoch has risen")
    await the_nodes_found_each_other(world)
    one = await world.client(world.accounts[2, 0], 2).login()
    two = await world.client(world.accounts[0, 2], 1).login()
    one.say(two.bare, ["after all"])
    await two.until(lambda: "after all" in two.bodies(), "a message after all of it")
    await one.logout()
    await two.logout()


ALL = (
    the_nodes_found_each_other,
    all_chat_with_all,
    an_operator_asks_at_any_node,
    presence_comes_and_goes,
    one_archive_is_paged_at_each_node,
    another_maker_s_client_writes_across,
    a_node_goes_and_comes,
)
