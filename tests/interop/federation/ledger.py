"""Numbered messages between pairs of servers, one of which is stopped, killed and started again meanwhile; and the account
of each number afterwards.

A number is *promised* when the sender's server has acknowledged it to the sender (XEP-0198). Of a promised one the recipient
must hear, or the sender of its failure. Whose fault the others are:

- the recipient's server wrote down that it read it (its own hook, where it is not Corefire): that server's;
- else, the sender's server is Corefire: Corefire's, which had no right to take it for confirmed;
- else, the recipient's server is Corefire, and the sender's has XEP-0198 between servers and was not itself killed:
  Corefire's, which acknowledged it;
- else: the sender's server's, which has it in memory, or no barrier.

Order is a matter of a server of ours that sends: as the recipient's server read the numbers, or, where that is ours, too, as
the recipient heard them; each where it came first. (What Prosody sends again comes behind what it sent since.)
"""

import asyncio
import secrets
import time

from clients import Failed, check
from people import person
from servers import LEDGER
from slixmpp.exceptions import IqError, IqTimeout

PER_SECOND = 40
# Of each part: before, between and behind the ends of the server.
FLOW_SECONDS = 2.5
DOWN_SECONDS = 1.0
# How long what is under way may take to arrive at last, or to be refused.
DRAIN_SECONDS = 45
RETRY_SECONDS = 0.2


class Flow:
    """From one account to another: what was sent, acknowledged, refused and heard."""

    def __init__(self, sender, recipient, user):
        self.sender, self.recipient, self.user = sender, recipient, user
        self.run = secrets.token_hex(3)
        self.sent = 0
        self.acknowledged, self.refused, self.heard = set(), {}, []
        self.to = f"{user}@{LEDGER.domain(recipient.label)}"

    def __str__(self):
        return f"{self.sender.label} to {self.recipient.label}"

    def id(self, number):
        return f"{self.run}-{number}"

    def number(self, id):
        run, _, number = id.partition("-")
        return int(number) if run == self.run and number.isdigit() else None

    def send(self, client):
        message = client.make_message(mto=self.to, mbody=str(self.sent), mtype="chat")
        message["id"] = self.id(self.sent)
        self.sent += 1
        message.send()

    def open_numbers(self):
        return self.acknowledged - set(self.refused) - set(self.heard)


class Restless:
    """An account that logs in again whenever its connection is lost; sends its flow, and writes down what it hears."""

    def __init__(self, peer, user, sends, hears):
        self.peer, self.user, self.sends, self.hears = peer, user, sends, hears
        self.is_sending, self.is_over = True, False
        self.client = None

    def login(self):
        client = person(self.peer, LEDGER, self.user, stream_management=True)
        client.add_event_handler("stanza_acked", self.on_acked)
        for event in ("message", "message_error"):
            client.add_event_handler(event, self.on_message)
        return client

    def on_acked(self, stanza):
        if stanza.name == "message":
            number = self.sends.number(stanza["id"])
            if number is not None:
                self.sends.acknowledged.add(number)

    def on_message(self, message):
        if message["type"] == "error":
            number = self.sends.number(message["id"])
            if number is not None:
                self.sends.refused[number] = message["error"]["condition"]
        else:
            number = self.hears.number(message["id"])
            if number is not None:
                self.hears.heard.append(number)

    async def live(self):
        while not self.is_over:
            client = self.client = self.login()
            try:
                await client.login(presence=False)
                client.send_presence()
                await self.use(client)
            except (Failed, IqError, IqTimeout):
                # The server is away; what matters is in the flows.
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                if client.is_connected() and self.is_over:
                    await client.logout()
                else:
                    client.drop()

    async def use(self, client):
        started, sent = time.monotonic(), 0
        while client.is_connected() and not self.is_over:
            if self.is_sending:
                for _ in range(int((time.monotonic() - started) * PER_SECOND) - sent):
                    self.sends.send(client)
                    sent += 1
            elif client.plugin["xep_0198"].enabled_out:
                client.plugin["xep_0198"].request_ack()
            await asyncio.sleep(0.05 if self.is_sending else 0.5)


class Ledger:
    def __init__(self, victim, pairs):
        self.victim = victim
        self.flows, self.people = [], []
        for one, two in pairs:
            # A user for each pair at either end, so that nobody's numbers mix.
            there = two if one is victim else one
            user = "ada" if not self.people else ("bea", "cyd", "dan")[len(self.people) // 2 - 1]
            out, back = Flow(victim, there, user), Flow(there, victim, user)
            self.flows += [out, back]
            self.people += [Restless(victim, user, out, back), Restless(there, user, back, out)]

    async def run(self):
        tasks = self.tasks = [asyncio.create_task(one.live()) for one in self.people]
        try:
            await self.flow()
            trouble = await asyncio.to_thread(self.victim.stop)
            check(trouble is None, f"{trouble}")
            await asyncio.sleep(DOWN_SECONDS)
            await asyncio.to_thread(self.victim.start)
            await self.flow()
            await asyncio.to_thread(self.victim.kill)
            await asyncio.sleep(DOWN_SECONDS)
            await asyncio.to_thread(self.victim.start)
            await self.flow()
            for one in self.people:
                one.is_sending = False
            await self.drain()
        finally:
            for one in self.people:
                one.is_over = True
            done, late = await asyncio.wait(tasks, timeout=10)
            for task in late:
                task.cancel()
        for task in done:
            task.result()
        return self.judge()

    async def flow(self):
        """Until each flow has moved for a while: a number sent now is heard."""
        marks = [flow.sent for flow in self.flows]
        await asyncio.sleep(FLOW_SECONDS)
        deadline = time.monotonic() + DRAIN_SECONDS
        while not all(max(flow.heard, default=-1) >= mark for flow, mark in zip(self.flows, marks)):
            for task in self.tasks:
                if task.done():
                    task.result()
            stuck = [str(flow) for flow, mark in zip(self.flows, marks) if max(flow.heard, default=-1) < mark]
            if time.monotonic() > deadline:
                raise Failed(
                    f"nothing new arrives from {', '.join(stuck)} within {DRAIN_SECONDS} s (starts of {self.victim.label}:"
                    f" {self.victim.starts})\n{await self.operators_see()}"
                )
            await asyncio.sleep(0.1)

    async def operators_see(self):
        """What our servers say of the others."""
        ours = {one.peer.label: one.peer for one in self.people if one.peer.is_corefire}
        told = [(label, await asyncio.to_thread(peer.server.attempt, "federation", "list")) for label, peer in ours.items()]
        return "\n".join(f"{label}: {line}" for label, done in told for line in (done.stdout + done.stderr).splitlines())

    async def drain(self):
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            if all(not self.lost(flow)[0] for flow in self.flows):
                # What comes twice comes soon.
                await asyncio.sleep(1)
                return
            await asyncio.sleep(0.2)

    def lost(self, flow):
        """Numbers that are Corefire's loss, and those that are others', by whose."""
        ours, theirs = [], {}
        seen = flow.recipient.seen()
        seen = None if seen is None else set(seen)
        sender, recipient = flow.sender, flow.recipient
        for number in sorted(flow.open_numbers()):
            if seen is not None and flow.id(number) in seen:
                theirs.setdefault(recipient.label, []).append(number)
            elif sender.is_corefire or (recipient.is_corefire and sender.has_acks and sender is not self.victim):
                ours.append(number)
            else:
                theirs.setdefault(sender.label, []).append(number)
        return ours, theirs

    def judge(self):
        notes, faults = [], []
        for flow in self.flows:
            ours, theirs = self.lost(flow)
            first = list(dict.fromkeys(flow.heard))
            twice = len(flow.heard) - len(first)
            late = out_of_order(first)
            note = f"{flow}: {flow.sent} sent, {len(flow.acknowledged)} acknowledged, {len(first)} heard"
            note += f", {len(flow.refused)} refused" * bool(flow.refused) + f", {twice} twice" * bool(twice)
            note += f", {len(late)} out of order" * bool(late)
            note += "".join(f", {len(numbers)} lost by {label}" for label, numbers in theirs.items())
            print(f"   {note}", flush=True)
            if ours:
                faults.append(f"{flow}: acknowledged, not heard and not refused: {ours}")
            if flow.sender.is_corefire:
                seen = flow.recipient.seen()
                order = first if seen is None else [n for n in map(flow.number, seen) if n is not None]
                if late := out_of_order(order):
                    faults.append(f"{flow}: out of order: {late}, in {order}")
            notes.append((flow.sent, len(first)))
        check(not faults, f"ledger while {self.victim.label} restarts: " + "; ".join(faults))
        return f"{self.victim.label}: {sum(sent for sent, _ in notes)} sent"


def out_of_order(numbers):
    return [after for before, after in zip(numbers, numbers[1:]) if after < before]
