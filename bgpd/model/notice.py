"""Notices: what there is to tell people, as data. A log event, an MQTT event and a counter derive from each.

A name is ``noun.past-verb`` and stable; :data:`KINDS` has every one of them, and what it means (a test looks for names that are not there).
"""

from __future__ import annotations

import msgspec


class Notice(msgspec.Struct, frozen=True):
    """A transition worth telling. *name* is one of KINDS."""

    name: str
    fields: dict[str, str | int | float | bool | None] = {}


class Kind(msgspec.Struct, frozen=True):
    """What a name means, and whether it is good news (logged as info, else as a warning)."""

    text: str
    good: bool = False


KINDS: dict[str, Kind] = {
    "adj-rib-out.refused": Kind("ExaBGP did not take an announcement; it is tried again"),
    "bfd.down": Kind("the BFD session with a peer went down"),
    "bfd.lost": Kind("the BFD process ended; another one is started"),
    "bfd.mute": Kind("BFD packets to a peer cannot be sent, and why"),
    "bfd.refused": Kind("a BFD session cannot be made; it is tried again"),
    "bfd.up": Kind("the BFD session with a peer came up", good=True),
    "block.claimed": Kind("this node owns a block", good=True),
    "block.released": Kind("this node owns a block no longer"),
    "change.not_rolled_back": Kind("a change that was not confirmed in time cannot be taken back, and why"),
    "change.rolled_back": Kind(
        "a change of resources was not confirmed in time and was taken back, and what of it was not"
    ),
    "claims.refused": Kind("no block could be claimed of a pool; it is tried again"),
    "collector.started": Kind("this node collects what nobody needs any more", good=True),
    "drain.ended": Kind("this node announces its routes again", good=True),
    "drain.finished": Kind("all announcements of this node are withdrawn, and why now"),
    "drain.resumed": Kind("this node was being drained before it restarted, and still is"),
    "drain.started": Kind("this node asks to be avoided (GRACEFUL_SHUTDOWN) until traffic has left it"),
    "configuration.refused": Kind("the configuration was to be loaded again and cannot be used; nothing has changed"),
    "configuration.reloaded": Kind(
        "the configuration was loaded again: what has changed, what waits for a start", good=True
    ),
    "fib.compat_mode": Kind("a change of a group costs a notification for each of its routes, by a sysctl", good=True),
    "fib.contested": Kind("somebody else keeps changing what is ours in the kernel"),
    "fib.differed": Kind("the full comparison found differences that no event had told of"),
    "fib.without_objects": Kind("hops are written into each route: a failover is a message for each"),
    "health.failed": Kind("a health check failed: what depends on it is withdrawn"),
    "health.passed": Kind("a health check passed: what depends on it is announced", good=True),
    "ipam.collected": Kind("addresses or a block that nobody needs were given back", good=True),
    "ipam.kept": Kind("addresses or a block could not be given back, and why"),
    "kernel.refused": Kind("the kernel did not take an object; it is tried again"),
    "lease.lost": Kind("this node's lease had ended: for others it was dead"),
    "log.level_changed": Kind(
        "BGPConfiguration asks for another log level; the node's file decides where it says one", good=True
    ),
    "mqtt.lost": Kind("the broker cannot be reached; it is tried again"),
    "mqtt.returned": Kind("the broker is there again", good=True),
    "mtu.exceeded": Kind("workloads have a larger MTU than the overlay leaves them"),
    "mtu.unwritten": Kind("the MTU for workloads could not be written to its file"),
    "name.held": Kind("another boot of this host holds the node's name; its lease is waited for"),
    "neighbors.refused": Kind("a peer is not configured in ExaBGP; it is tried again"),
    "node.died": Kind("the lease of a node has ended"),
    "password.changed": Kind("a session's password was changed; the session begins anew", good=True),
    "password.unfit": Kind("a password cannot be used, and why"),
    "path.forced": Kind("an operator said by which way a node is reached", good=True),
    "path.released": Kind("the way to a node is chosen again, and why now", good=True),
    "path.changed": Kind("a destination is reached another way"),
    "peer.established": Kind("a BGP session is established", good=True),
    "peer.held": Kind("a peer must stay down, and why"),
    "peer.near_limit": Kind("a peer sends nearly as many prefixes as it may"),
    "peer.lost": Kind("a BGP session ended, and why"),
    "phase.entered": Kind("start-up went on to the next phase", good=True),
    "record.skipped": Kind("a record of the store cannot be read"),
    "routes.swept": Kind("routes that were kept over a restart were dropped"),
    "speaker.lost": Kind("ExaBGP ended; another one is started"),
    "store.compacted": Kind("the store had dropped history that was needed: it was read anew"),
    "store.lost": Kind("the store cannot be reached; routing goes on as decided"),
    "store.returned": Kind("the store is there again", good=True),
    "tunnel.address_assigned": Kind("this node has a tunnel address", good=True),
    "tunnel.address_missing": Kind("this node gets no tunnel address, and why"),
    "tunnel.address_released": Kind("no pool needs this node's tunnel address: it was given back", good=True),
    "wireguard.key_changed": Kind("this node has a new WireGuard key", good=True),
    "wireguard.key_unfit": Kind("this node's WireGuard key cannot be used or made, and why"),
    "update.malformed": Kind("a peer sent a malformed UPDATE, and what was done (RFC 7606)"),
}
