"""What users of two domains have of one another. Each scenario is a coroutine over the `World`; it returns normally, with a
note, or raises `Failed`."""

import asyncio
import contextlib
import secrets
import socket
import xml.etree.ElementTree as ElementTree

from clients import Failed, check, within
from ledger import Ledger
from names import ZONE
from people import FIRST_SECONDS, Refusal, both, person
from servers import DEAD, FAILOVER, LEDGER, SERVER_PORT, SILENT, WAYS, WRONG

MESSAGES = 20
DISCO = "http://jabber.org/protocol/disco#info"
# What a server says of one that there is not, or that has nothing to say to strangers.
NOBODY = ("service-unavailable", "item-not-found")
UNREACHABLE = ("remote-server-not-found", "remote-server-timeout")


class World:
    """The servers, those that are of interest in pairs, and how they are told apart."""

    def __init__(self, peers, pairs):
        self.peers, self.pairs = peers, pairs

    def directions(self):
        """Who dials whom."""
        return [direction for one, two in self.pairs for direction in ((one, two), (two, one))]

    @contextlib.asynccontextmanager
    async def meeting(self, way, one, two, **more):
        people = [person(one, way, "ada", **more), person(two, way, "bea", **more)]
        try:
            await both(*(one.login() for one in people))
            yield people
        finally:
            for one in people:
                if one.is_connected():
                    await one.logout()


async def chat(one, two):
    """Strangers, both ways at once: in order, each once, and as they were written."""
    run = secrets.token_hex(3)
    said = [[f"{run} {who.user} {n} <&>\"' žluť 🦀" for n in range(MESSAGES)] for who in (one.account, two.account)]
    # The first alone, so that a way that does not open is told as such.
    one.writes(two.bare, said[0][0])
    await two.hears(one, said[0][:1], FIRST_SECONDS)
    two.writes(one.boundjid.full, said[1][0])
    await one.hears(two, said[1][:1], FIRST_SECONDS)
    for pair in zip(said[0][1:], said[1][1:]):
        one.writes(two.bare, pair[0])
        two.writes(one.boundjid.full, pair[1])
    await both(two.hears(one, said[0][1:]), one.hears(two, said[1][1:]))


async def queries(asker, other):
    """IQ to a client, to its account, to its server; and what nobody answers."""
    full, server = other.boundjid.full, other.boundjid.domain
    disco = asker.plugin["xep_0030"]
    pong = await asker.asks(asker.plugin["xep_0199"].send_ping(full, timeout=FIRST_SECONDS), f"ping of {full}")
    check(not isinstance(pong, Refusal), f"{asker}: ping of {full}: {pong}")
    pong = await asker.asks(asker.plugin["xep_0199"].send_ping(server, timeout=FIRST_SECONDS), f"ping of {server}")
    check(not isinstance(pong, Refusal), f"{asker}: ping of {server}: {pong}")

    info = await asker.asks(disco.get_info(jid=full, timeout=FIRST_SECONDS), f"disco of {full}")
    check(not isinstance(info, Refusal), f"{asker}: disco of {full}: {info}")
    check("jabber:iq:version" in info["disco_info"]["features"], f"{asker}: disco of {full} is its client's")
    version = await asker.asks(asker.plugin["xep_0092"].get_version(full, timeout=FIRST_SECONDS), f"version of {full}")
    check(version["software_version"]["name"] == "test of federation", f"{asker}: version of {full}: {version}")

    info = await asker.asks(disco.get_info(jid=server, timeout=FIRST_SECONDS), f"disco of {server}")
    check(not isinstance(info, Refusal), f"{asker}: disco of {server}: {info}")
    identities = {(category, kind) for category, kind, _, _ in info["disco_info"]["identities"]}
    check(("server", "im") in identities, f"{asker}: identity server/im of {server} among {identities}")
    items = await asker.asks(disco.get_items(jid=server, timeout=FIRST_SECONDS), f"items of {server}")
    check(not isinstance(items, Refusal), f"{asker}: items of {server}: {items}")

    for to, wanted in (
        (f"nobody@{server}", NOBODY), (f"{other.bare}/absent", NOBODY), (other.bare, ("feature-not-implemented", *NOBODY)),
    ):
        unknown = asker.make_iq_get(ito=to, queryxmlns="urn:example:unknown")
        answer = await asker.asks(unknown.send(timeout=FIRST_SECONDS), f"a request to {to}")
        check(isinstance(answer, Refusal), f"{asker}: a request that {to} does not know was answered: {answer}")
        check(answer.condition in wanted, f"{asker}: a request to {to} was refused with {answer}")


async def errors(writer, other):
    """Of messages: to nobody, and refused by the client that got one."""
    nobody = f"nobody-{secrets.token_hex(3)}@{other.boundjid.domain}"
    refusal = await writer.is_refused(writer.writes(nobody, "hello?"), f"an error for a message to {nobody}")
    check(refusal.condition in NOBODY, f"{writer}: a message to {nobody} was refused with {refusal}")

    body = f"please refuse {secrets.token_hex(3)}"
    id = writer.writes(other.boundjid.full, body)
    await other.until(lambda: body in other.bodies(), "a message to refuse")
    received = next(it for it in other.received if it["body"] == body)
    other.received.remove(received)
    reply = other.make_message(mto=received["from"], mtype="error")
    reply["id"] = received["id"]
    reply["error"]["condition"], reply["error"]["type"] = "not-acceptable", "modify"
    reply["error"]["text"] = "No, thank you"
    reply.send()
    refusal = await writer.is_refused(id, f"the error of {other}")
    check(str(refusal) == "not-acceptable (No, thank you)", f"{writer}: the error of {other} came as {refusal}")


async def foreign_payload(writer, reader):
    """What neither server knows arrives as it was: names, attributes, text, and what stands in a namespace of its own."""
    # Without attributes of other namespaces: slixmpp does not write them.
    sent = (
        "<wrap xmlns='urn:example:wrap' xmlns:o='urn:example:other' plain='1 &lt; &quot;&apos;'>"
        "<o:inner>text &amp; <b xmlns=''>none</b> tail</o:inner><empty/></wrap>"
    )
    body = f"payload {secrets.token_hex(3)}"
    message = writer.make_message(mto=reader.bare, mbody=body, mtype="chat")
    message.append(ElementTree.fromstring(sent))
    message.send()
    await reader.until(lambda: body in reader.bodies(), "a message with a payload")
    received = next(it for it in reader.received if it["body"] == body)
    reader.received.remove(received)
    found = received.xml.find("{urn:example:wrap}wrap")
    check(found is not None, f"{reader}: the payload of {writer} is missing in {received}")
    wanted = ElementTree.canonicalize(sent, rewrite_prefixes=True)
    found.tail = None
    got = ElementTree.canonicalize(ElementTree.tostring(found, "unicode"), rewrite_prefixes=True)
    check(got == wanted, f"{reader}: the payload of {writer} came as {got}, not {wanted}")
    spaces = {element.tag.partition("}")[0] for element in received.xml.iter()}
    check("{jabber:server" not in spaces, f"{reader}: a namespace of servers in {received}")


async def presence(one, two, come_again):
    """Subscriptions asked, granted, and taken back, each way; comings, goings and what changes between."""
    one.tell("subscribe", two)
    await two.is_asked("subscribe", one)
    two.tell("subscribed", one)
    await one.is_asked("subscribed", two)
    await one.subscription(two, "to")
    await two.subscription(one, "from")
    await one.sees(two, "available")
    check(one.boundjid.full not in two.present, f"{two} sees {one}, who did not allow it")

    two.tell("subscribe", one)
    await one.is_asked("subscribe", two)
    one.tell("subscribed", two)
    await both(one.subscription(two, "both"), two.subscription(one, "both"))
    await two.sees(one, "available")

    two.send_presence(pshow="away", pstatus="à table")
    await one.sees(two, "away")
    one.send_presence(pshow="dnd")
    await two.sees(one, "dnd")
    await two.logout()
    await one.sees(two, None)
    # Who comes again is told how things are.
    again = await come_again()
    await both(again.sees(one, "dnd"), one.sees(again, "available"))

    one.asked.clear()
    again.tell("unsubscribed", one)
    await one.is_asked("unsubscribed", again)
    await one.sees(again, None)
    await one.subscription(again, "from")
    one.tell("unsubscribed", again)
    await again.is_asked("unsubscribed", one)
    await again.sees(one, None)
    await both(one.subscription(again, "none"), again.subscription(one, "none"))
    return again


async def talk(world, way, one, two):
    """All of it, between one at one server and one at another."""
    async with world.meeting(way, one, two) as people:
        ada, bea = people
        where = f"{way.name}: {one.label} and {two.label}"
        steps = (
            ("chat", lambda: chat(ada, bea)),
            ("queries", lambda: queries(ada, bea)), ("queries back", lambda: queries(bea, ada)),
            ("errors", lambda: errors(ada, bea)), ("errors back", lambda: errors(bea, ada)),
            ("a payload", lambda: foreign_payload(ada, bea)), ("a payload back", lambda: foreign_payload(bea, ada)),
        )
        for name, step in steps:
            await of(where, name, step())

        async def come_again():
            people[1] = person(two, way, "bea", "again")
            return await people[1].login()

        await of(where, "presence", presence(ada, bea, come_again))


async def of(where, what, step):
    """Failures say where they were."""
    try:
        return await step
    except Failed as failure:
        raise Failed(f"{where}, {what}: {failure}") from None


async def all_ways(world, way):
    for one, two in world.pairs:
        await talk(world, way, one, two)
    return f"{len(world.pairs)} pairs: " + ", ".join(f"{one.label}–{two.label}" for one, two in world.pairs)


async def certificates_over_starttls(world):
    return await all_ways(world, WAYS[0])


async def certificates_over_direct_tls(world):
    return await all_ways(world, WAYS[1])


async def dialback_over_starttls(world):
    return await all_ways(world, WAYS[2])


async def dialback_over_direct_tls(world):
    return await all_ways(world, WAYS[3])


async def the_second_target_serves_when_the_first_is_dead(world):
    """In each direction; a target that refuses the connection."""
    for one, two in world.directions():
        await fail_over(world, FAILOVER, one, two)


async def a_target_that_says_nothing_is_passed_over(world):
    """The first target takes no connection and refuses none. Of ours only: others may wait for minutes."""
    dialling = [(one, two) for one, two in world.directions() if one.is_corefire]
    if not dialling:
        return "skipped: no server of ours"
    with black_hole(DEAD[SILENT], SERVER_PORT):
        for one, two in dialling:
            await fail_over(world, SILENT, one, two)


async def fail_over(world, way, one, two):
    async with world.meeting(way, one, two) as (ada, bea):
        body = f"over {secrets.token_hex(3)}"
        ada.writes(bea.bare, body)
        await of(f"{one.label} to {two.label}", "fail-over", bea.hears(ada, [body], FIRST_SECONDS))


@contextlib.contextmanager
def black_hole(address, port):
    """A place whose packets are lost: as long as a listener has connections that it did not take, the kernel drops those
    that come."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            filling = sockets.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex((address, port))
        yield


async def domains_that_are_not_there(world):
    """No such name, and a name that says that it has no such service: told at once, and as what it is."""
    for peer in world.peers:
        ada = await person(peer, LEDGER, "ada").login()
        for domain in (f"missing.{ZONE}", f"nowhere.{ZONE}"):
            refusal = await ada.is_refused(ada.writes(f"bea@{domain}", "hello?"), f"an error for a message to {domain}")
            wanted = UNREACHABLE[:1] if peer.is_corefire else UNREACHABLE
            check(refusal.condition in wanted, f"{ada}: a message to {domain} was refused with {refusal}")
            ping = ada.plugin["xep_0199"].send_ping(domain, timeout=FIRST_SECONDS)
            answer = await ada.asks(ping, f"a ping of {domain}")
            check(isinstance(answer, Refusal), f"{ada}: {domain} answered a ping: {answer}")
            check(answer.condition in wanted, f"{ada}: a ping of {domain} was refused with {answer}")
        await ada.logout()


async def who_has_the_certificate_of_another_is_not_believed(world):
    """Neither who dials such a one nor who is dialled by one takes a stanza: its users are told so."""

    async def refuse(writer, other):
        id = writer.writes(other.bare, "who are you?")
        refusal = await writer.is_refused(id, f"an error for a message to {other.bare}")
        check(refusal.condition not in NOBODY, f"{writer}: a message to {other.bare} was refused with {refusal}")
        check(not other.received, f"{other} got a message from {writer}: {other.bodies()}")

    async def disbelieve(one, two):
        ada, bea = person(one, WRONG, "ada", two.label), person(two, LEDGER, "bea", one.label)
        await both(ada.login(), bea.login())
        dials = [(ada, bea), (bea, ada)] if two.checks_whom_it_dials else [(ada, bea)]
        await asyncio.gather(*(refuse(*pair) for pair in dials))
        await both(ada.logout(), bea.logout())

    # Who keeps messages for a while may do so for all of them at once.
    await asyncio.gather(*(of(f"{one.label} and {two.label}", "trust", disbelieve(one, two)) for one, two in world.pairs))


async def an_operator_is_told_what_is_wrong(world):
    """`corefire federation check`: the walk to each of the others, and where it ends and why."""
    ours = [peer for peer in world.peers if peer.is_corefire]
    if not ours:
        return "skipped: no server of ours"
    for peer in ours:
        for other in world.peers:
            if other is not peer:
                for way in (*WAYS, FAILOVER):
                    await told(peer, way.domain(other.label), True, "TLS")
                await told(peer, WRONG.domain(other.label), False, "certificate")
        await told(peer, f"missing.{ZONE}", False, "DNS")
        await told(peer, f"nowhere.{ZONE}", False, "SRV")


async def told(peer, domain, is_sound, word):
    done = await asyncio.to_thread(peer.server.attempt, "federation", "check", domain)
    said = f"{peer.label}: federation check {domain}: exit status {done.returncode}, {done.stdout}{done.stderr}"
    check((done.returncode == 0) == is_sound, said)
    check(word in done.stdout, f"{said}: no word of {word}")


async def restarts_under_a_ledger(world):
    """Numbered messages flow both ways between each pair while one of the servers stops and starts, and is killed."""
    notes = []
    for victim in world.peers:
        pairs = [pair for pair in world.pairs if victim in pair]
        if pairs:
            notes.append(await Ledger(victim, pairs).run())
    return "; ".join(notes)


ALL = (
    certificates_over_starttls,
    certificates_over_direct_tls,
    dialback_over_starttls,
    dialback_over_direct_tls,
    the_second_target_serves_when_the_first_is_dead,
    a_target_that_says_nothing_is_passed_over,
    domains_that_are_not_there,
    who_has_the_certificate_of_another_is_not_believed,
    an_operator_is_told_what_is_wrong,
    restarts_under_a_ledger,
)
