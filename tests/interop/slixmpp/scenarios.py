"""What a server must do for slixmpp and for a raw client. Each scenario is a coroutine over a `Server`; it returns
normally or raises `Failed`. The accounts may be used again: a scenario leaves nothing pending behind."""

import asyncio
import base64
import datetime
import hashlib
import hmac
import re
import secrets

from clients import STEP_SECONDS, Client, Component, Failed, RawStream, check, within

CHAT_MESSAGES = 50
OFFLINE_MESSAGES = 20
RESUME_MESSAGES = 30
PIPELINED_MESSAGES = 20
ARCHIVED_MESSAGES = 36


def bodies(label, count):
    """Numbered, and unlike those of any other run."""
    run = secrets.token_hex(3)
    return [f"{label} {run} {number}" for number in range(count)]


def check_login(client):
    mechanism = client.mechanism()
    print(f"   {client.boundjid}: {mechanism} over {client.socket.version()}, port {client.target_port}")
    check(
        mechanism == client.target.mechanism,
        f"{client.boundjid} used {mechanism}, wanted {client.target.mechanism}",
    )


async def become_strangers(one, two):
    for client, other in ((one, two), (two, one)):
        if other.bare in client.client_roster:
            await within(client.del_roster_item(other.bare), "removal of an old roster item")


async def subscribe_both_ways(one, two):
    """slixmpp grants a request and asks in turn."""
    one.send_presence_subscription(two.bare)
    for client, other in ((one, two), (two, one)):
        await client.until(
            lambda: client.client_roster[other.bare]["subscription"] == "both",
            f"subscription both with {other.bare}",
        )
        await client.until(
            lambda: other.boundjid.full in client.available, f"presence of {other.boundjid}"
        )
    for client, other in ((one, two), (two, one)):
        # Not by `get_roster`: that names the version it has, and may be told that nothing changed.
        query = client.make_iq_get(queryxmlns="jabber:iq:roster")
        roster = await within(query.send(), "roster")
        items = {str(jid): item for jid, item in roster["roster"]["items"].items()}
        check(other.bare in items, f"{client.bare} has {other.bare} in its roster")
        check(items[other.bare]["subscription"] == "both", f"{other.bare} is kept as both")


async def chat_of_pair(server, first, second):
    one = await Client(server, first, "starttls", "starttls").login()
    two = await Client(server, second, "direct", "direct").login()
    check_login(one)
    check_login(two)
    await become_strangers(one, two)
    await subscribe_both_ways(one, two)

    to_two, to_one = bodies("to two", CHAT_MESSAGES), bodies("to one", CHAT_MESSAGES)
    one.say(two.boundjid.full, to_two[: CHAT_MESSAGES // 2])
    two.say(one.boundjid.full, to_one)
    one.say(two.bare, to_two[CHAT_MESSAGES // 2 :])
    for message in await two.hears_exactly(to_two, "chat"):
        check(message["from"].full == one.boundjid.full, f"from is {message['from']}")
        check(not message["delay"]["stamp"], "a live message has no delay stamp")
    await one.hears_exactly(to_one, "chat")
    await one.logout()
    await two.logout()


async def chat(server):
    """Two clients, STARTTLS and direct TLS, SCRAM; roster, presence, messages both ways in order."""
    pairs = zip(server.accounts[::2], server.accounts[1::2])
    await asyncio.gather(*(chat_of_pair(server, one, two) for one, two in pairs))


async def offline(server):
    """Messages to a logged-out account arrive at login, in order, stamped, once."""
    one = await Client(server, server.accounts[0], "writer", "starttls").login()
    two_bare = server.bare(server.accounts[1])
    sent = bodies("offline", OFFLINE_MESSAGES)
    one.say(two_bare, sent)
    await one.pass_through(two_bare)

    two = await Client(server, server.accounts[1], "reader", "direct").login()
    for message in await two.hears_exactly(sent, "offline"):
        check(message["from"].full == one.boundjid.full, f"from is {message['from']}")
        check(message["delay"]["stamp"], "an offline message carries a delay stamp")
    await two.logout()

    two = await Client(server, server.accounts[1], "reader", "direct").login()
    live = bodies("live", 1)
    await two.ping_server()
    one.say(two.boundjid.full, live)
    await two.hears_exactly(live, "offline messages come once")
    await two.logout()
    await one.logout()


async def resume(server):
    """XEP-0198: a connection cut in the middle of traffic, resumed; nothing is lost, doubled or out of order."""
    one = await Client(server, server.accounts[0], "writer", "starttls").login()
    two = Client(server, server.accounts[1], "resumer", "direct", stream_management=True)
    await two.login()
    await two.until(lambda: "sm_enabled" in two.seen, "stream management")
    full = two.boundjid.full

    sent = bodies("resume", RESUME_MESSAGES)
    third = RESUME_MESSAGES // 3
    one.say(full, sent[:third])
    await two.until(lambda: len(two.received) >= third // 2, "the first messages")
    one.say(full, sent[third : 2 * third])
    # These leave the client, or stay in its buffer: the resumed stream must bring each of them once.
    answers = bodies("answer", third)
    two.say(one.boundjid.full, answers)
    await asyncio.sleep(0)
    await two.cut()
    one.say(full, sent[2 * third :])
    await one.ping_server()

    two.seen.clear()
    await two.establish("session_resumed", "sm_failed", "session_start")
    check("session_resumed" in two.seen, f"the stream was not resumed: {list(two.seen)}")
    await two.hears_exactly(sent, "resume")
    await one.hears_exactly(answers, "answers over the resumed stream")
    check(two.boundjid.full == full, "the resumed session keeps its address")

    live = bodies("live", 1)
    one.say(full, live)
    await two.hears_exactly(sent + live, "after the resume")
    await two.logout()
    await one.logout()


async def archive(server):
    """XEP-0313: both sides page through what they said, forward and back, with one of many, by time and by id."""
    one = await Client(server, server.accounts[0], "one", "starttls").login()
    two = await Client(server, server.accounts[1], "two", "direct").login()
    other = await Client(server, server.accounts[2], "other", "direct").login()
    features = await two.plugin["xep_0030"].get_info(jid=two.bare, timeout=STEP_SECONDS)
    if "urn:xmpp:mam:2#extended" not in features["disco_info"]["features"]:
        for client in (one, two, other):
            await client.logout()
        check(not server.is_corefire, "an account has an archive")
        return "skipped: no archives"

    began = datetime.datetime.now(datetime.timezone.utc)
    said = bodies("archive", ARCHIVED_MESSAGES)
    half = len(said) // 2
    for number, body in enumerate(said[:half]):
        speaker, listener = (one, two) if number % 3 else (two, one)
        speaker.say(listener.bare, [body])
        await listener.until(lambda: body in listener.bodies(), body)
    (aside,) = bodies("from another", 1)
    other.say(two.bare, [aside])
    await two.until(lambda: aside in two.bodies(), aside)
    # Stamps of XEP-0082 without fractions tell the halves apart.
    await asyncio.sleep(1.1)
    middle = datetime.datetime.now(datetime.timezone.utc)
    await asyncio.sleep(1.1)
    one.say(two.boundjid.full, said[half:])
    await two.until(lambda: said[-1] in two.bodies(), said[-1])

    def body(result):
        return result["mam_result"]["forwarded"]["stanza"]["body"]

    async def read(client, **asked):
        pages = client.plugin["xep_0313"].iterate(start=began, rsm={"max": 7}, **asked)
        return [result async for result in pages]

    for client, peer in ((one, two), (two, one)):
        results = await within(read(client, with_jid=peer.bare), "pages forward")
        check([body(result) for result in results] == said, "forward: all of it, in order")
        check(all(result["from"] in ("", client.bare) for result in results), "of the archive")
        ids = [result["mam_result"]["id"] for result in results]
        check(len(set(ids)) == len(said), "each has an id of its own")
        for result in results:
            check(result["mam_result"]["forwarded"]["delay"]["stamp"], "each has its time")

        results = await within(read(client, with_jid=peer.bare, reverse=True), "pages backward")
        check([body(result) for result in results] == said[::-1], "back: the same, newest first")
        check([result["mam_result"]["id"] for result in results] == ids[::-1], "and the same ids")

        results = await within(read(client, end=middle), "up to a time")
        wanted = said[:half] + ([aside] if client is two else [])
        check([body(result) for result in results] == wanted, "what was said before the time")

        query = client.plugin["xep_0313"].retrieve(rsm={"max": 3, "after": ids[4]})
        page = await within(query, "a page behind an id")
        found = [body(result) for result in page["mam"]["results"]]
        check(found == said[5:8], f"what comes behind the fifth, not {found}")

    live = {message["stanza_id"]["id"] for message in two.received if message["body"] in said}
    results = await within(read(two, with_jid=one.bare), "the archive again")
    kept = {result["mam_result"]["id"] for result in results}
    check(live <= kept and live, "who got a message was told its id in the archive")
    ends = await within(two.plugin["xep_0313"].get_archive_metadata(), "the ends of the archive")
    check(ends["mam_metadata"]["end"]["id"] in kept, "the newest is its end")
    for client in (one, two, other):
        await client.logout()


async def queries(server):
    """Ping (XEP-0199), disco (XEP-0030) and time (XEP-0202) of the server."""
    client = await Client(server, server.accounts[0], "asker", "direct").login()
    await client.ping_server()
    info = await within(
        client.plugin["xep_0030"].get_info(jid=server.domain), "disco of the server"
    )
    identities = {(category, kind) for category, kind, _, _ in info["disco_info"]["identities"]}
    check(("server", "im") in identities, f"identity server/im among {identities}")
    features = info["disco_info"]["features"]
    for feature in ("http://jabber.org/protocol/disco#info", "urn:xmpp:ping", "urn:xmpp:time"):
        check(feature in features, f"{feature} among {sorted(features)}")
    time = await within(client.plugin["xep_0202"].get_entity_time(server.domain), "time")
    # slixmpp 1.17 cannot read the time that the XEP asks for: it adds a second Z to it.
    utc = time["entity_time"].xml.findtext("{urn:xmpp:time}utc")
    told = datetime.datetime.fromisoformat(utc)
    now = datetime.datetime.now(datetime.timezone.utc)
    check(utc.endswith("Z") and abs(now - told).total_seconds() < 60, f"a time in UTC, not {utc}")
    tzo = time["entity_time"].xml.findtext("{urn:xmpp:time}tzo") or ""
    check(re.fullmatch(r"Z|[+-]\d\d:\d\d", tzo), f"an offset, not {tzo!r}")
    await client.logout()


async def pipelining(server):
    """Authentication, restart, bind and messages in one segment: nothing waits for an answer."""
    two = await Client(server, server.accounts[1], "reader", "direct").login()
    account = server.accounts[0]
    sent = bodies("pipelined", PIPELINED_MESSAGES)
    stream = await RawStream.connect(server)
    plain = f"\0{account.user}\0{account.password}".encode()
    messages = "".join(
        f"<message to='{two.boundjid.full}' type='chat' id='p{number}'><body>{body}</body></message>"
        for number, body in enumerate(sent)
    )
    steps = [
        (stream.header() + stream.auth("PLAIN", plain), "<success"),
        (
            stream.header() + "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            "<resource>pipelined</resource></bind></iq>",
            "</jid>",
        ),
        (messages, None),
    ]
    if server.is_corefire:
        stream.send("".join(step for step, _ in steps))
        await stream.until("</jid>")
    else:
        for step, mark in steps:
            stream.send(step)
            if mark:
                await stream.until(mark)
    for message in await two.hears_exactly(sent, "pipelining"):
        check(
            message["from"].full == f"{server.bare(account)}/pipelined",
            f"from is {message['from']}",
        )
    await stream.close()
    await two.logout()


async def wrong_password(server):
    """A wrong password and an unknown name fail alike, and the stream can try again."""
    heard = []
    known, unknown = server.accounts[0].user, "nobody-" + secrets.token_hex(3)
    # Other servers may tell at once that a name is unknown.
    for user in (known, unknown) if server.is_corefire else (known,):
        stream = await RawStream.connect(server)
        stream.send(stream.header())
        await stream.until("</stream:features>", "</features>")
        stream.send(stream.auth(server.mechanism, f"n,,n={user},r={secrets.token_hex(8)}".encode()))
        first, nonce = await scram_challenge(stream)
        proof = base64.b64encode(bytes(scram_hash(server)().digest_size)).decode()
        respond(stream, f"c=biws,r={nonce},p={proof}")
        failure = await stream.until("</failure>")
        check("<not-authorized" in failure, f"not-authorized in {failure}")
        heard.append((len(first), re.sub(r"\s", "", failure)))

        account = server.accounts[0]
        stream.send(stream.auth("PLAIN", f"\0{account.user}\0{account.password}".encode()))
        await stream.until("<success")
        stream.writer.close()
    check(heard[0] == heard[-1], f"a known and an unknown name differ: {heard}")


async def channel_binding(server):
    """SCRAM-PLUS bound to the server's certificate; the same login bound to another one fails."""
    mechanism = f"{server.mechanism}-PLUS"
    stream = await RawStream.connect(server)
    stream.send(stream.header())
    features = await stream.until("</stream:features>", "</features>")
    stream.writer.close()
    if f">{mechanism}<" not in features or "tls-server-end-point" not in features:
        check(not server.is_corefire, f"{mechanism} with tls-server-end-point is offered: {features}")
        return "skipped: not offered"

    account = server.accounts[0]
    for is_right in (True, False):
        stream = await RawStream.connect(server)
        stream.send(stream.header())
        certificate = stream.certificate() if is_right else b"of another server"
        header = b"p=tls-server-end-point,,"
        binding = base64.b64encode(header + hashlib.sha256(certificate).digest()).decode()
        bare = f"n={account.user},r={secrets.token_hex(8)}"
        stream.send(stream.auth(mechanism, header + bare.encode()))
        first, nonce = await scram_challenge(stream)
        without_proof = f"c={binding},r={nonce}"
        proof, signature = scram_proof(server, account, bare, first, without_proof)
        respond(stream, f"{without_proof},p={proof}")
        end = await stream.until("</success>", "</failure>")
        if is_right:
            check("<success" in end, f"success in {end}")
            final = base64.b64decode(re.search(r">([^<]+)</success>", end).group(1)).decode()
            check(final == f"v={signature}", "the server proves that it knows the password")
        else:
            check("<not-authorized" in end, f"not-authorized in {end}")
        stream.writer.close()


def scram_hash(server):
    hashes = {"1": hashlib.sha1, "256": hashlib.sha256, "512": hashlib.sha512}
    return hashes[server.mechanism.removeprefix("SCRAM-SHA-")]


async def scram_challenge(stream):
    challenge = await stream.until("</challenge>", "</failure>")
    match = re.search(r">([^<]+)</challenge>", challenge)
    if match is None:
        raise Failed(f"a challenge, not {challenge}")
    first = base64.b64decode(match.group(1)).decode()
    return first, re.match(r"r=([^,]+),", first).group(1)


def scram_proof(server, account, bare, first, without_proof):
    algorithm = scram_hash(server)
    name = algorithm().name
    salt, iterations = re.search(r",s=([^,]+),i=(\d+)", first).groups()
    salted = hashlib.pbkdf2_hmac(
        name, account.password.encode(), base64.b64decode(salt), int(iterations)
    )
    client_key = hmac.digest(salted, b"Client Key", name)
    message = f"{bare},{first},{without_proof}".encode()
    signature = hmac.digest(algorithm(client_key).digest(), message, name)
    proof = bytes(left ^ right for left, right in zip(client_key, signature))
    verifier = hmac.digest(hmac.digest(salted, b"Server Key", name), message, name)
    return base64.b64encode(proof).decode(), base64.b64encode(verifier).decode()


def respond(stream, message):
    encoded = base64.b64encode(message.encode()).decode()
    stream.send(f"<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{encoded}</response>")


async def component(server):
    """XEP-0114: a component shakes hands, writes to a user, and has the user's answer; a wrong secret does not."""
    if not server.component_port:
        return "skipped: no component may connect"
    impostor = Component(server, secret="a guess")
    event, told = await impostor.come()
    check(event != "session_start", "a wrong secret is refused")
    check(event == "stream_error" and told["condition"] == "not-authorized", f"{event}: {told}")

    service = Component(server)
    event, told = await service.come()
    check(event == "session_start", f"session_start, not {event}: {told}")
    user = await Client(server, server.accounts[0], "user", "starttls").login()
    (question,) = bodies("from the component", 1)
    service.send_message(
        mto=user.bare, mfrom=f"news@{server.component}/feed", mbody=question, mtype="chat"
    )
    (message,) = await user.hears_exactly([question], "a component's message")
    check(message["from"].full == f"news@{server.component}/feed", f"from is {message['from']}")

    (answer,) = bodies("from the user", 1)
    message.reply(answer).send()
    message = await within(service.received.get(), "the user's answer")
    check(message["body"] == answer, f"heard {message['body']!r}, wanted {answer!r}")
    check(message["from"].full == user.boundjid.full, f"from is {message['from']}")
    check(message["to"].full == f"news@{server.component}/feed", f"to is {message['to']}")
    await user.logout()
    await service.leave()


ALL = (chat, offline, resume, archive, queries, pipelining, wrong_password, channel_binding, component)
