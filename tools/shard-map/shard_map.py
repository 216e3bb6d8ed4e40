#!/usr/bin/env python3
"""Who owns an address on a Corefire server, computed from its shard map. The rule is in src/cluster/placement.rs.

shard_map.py MAP JID...: a line of JSON for each. MAP is a file, or http://HOST:PORT of a node's admin address, with its
token in COREFIRE_TOKEN. JIDs are as the server writes them; case of ASCII does not matter."""
import hashlib, json, os, socket, sys, urllib.error, urllib.request
from fractions import Fraction

def hash64(data):
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")

def cost(name, partition):
    draw = hash64(name.encode() + b"\0" + partition.to_bytes(2, "big")) or 1
    log = draw.bit_length() - 1
    x = draw << (63 - log)
    for _ in range(32):
        x = x * x >> 63
        log, x = log << 1 | x >> 64, x >> (x >> 64)
    return (1 << 38) - log

class ShardMap:
    def __init__(self, text, etag=None):
        self.map, self.etag, self.owners = json.loads(text), etag, {}
        if (self.map["format"], self.map["rule"], self.map["partitions"]) != (1, "sha256-rendezvous-1", 4096):
            raise ValueError("a shard map of an unknown format or rule")
        self.epoch, members = self.map["epoch"], self.map["members"]
        weigh = (lambda one: one["weight"]) if any(one["weight"] for one in members) else lambda one: 1
        self.bidders = [(member, weigh(member)) for member in members if weigh(member)]

    def owner(self, jid):
        """Gives the member (name, node, weight, shards, clients, perhaps components) and the shard in it."""
        number = hash64(jid.split("/")[0].encode().lower())
        part = number % 4096
        bid = lambda bidder: (Fraction(cost(bidder[0]["name"], part), bidder[1]), bidder[0]["node"])
        if part not in self.owners:
            self.owners[part] = min(self.bidders, key=bid)[0]
        member = self.owners[part]
        return member, (number >> 32) * max(member["shards"], 1) >> 32

def fetch(url, token, known=None):
    """Gives the newest map: `known` itself where there is none newer. Ask every few seconds; an old map costs a hop."""
    headers = {"Authorization": "Bearer " + token, "If-None-Match": known and known.etag or '""'}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + "/api/v1/shard-map", headers=headers), timeout=10) as answer:
            new = ShardMap(answer.read(), answer.headers["ETag"])
    except urllib.error.HTTPError as error:
        if error.code == 304: return known
        raise
    return known if known and new.epoch < known.epoch else new

def connect(member, who="clients"):
    host, port = member[who][0].rsplit(":", 1)
    return socket.create_connection((host.strip("[]"), port), timeout=10)

if __name__ == "__main__":
    is_url = sys.argv[1].startswith("http")
    shard_map = fetch(sys.argv[1], os.environ["COREFIRE_TOKEN"]) if is_url else ShardMap(open(sys.argv[1]).read())
    for member, shard in map(shard_map.owner, sys.argv[2:]):
        print(json.dumps({"epoch": shard_map.epoch, "node": member["node"], "shard": shard, "clients": member["clients"],
                          "components": member.get("components", [])}))
