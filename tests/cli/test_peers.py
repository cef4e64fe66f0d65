"""``bgpd peers NAME``, ``refresh``, ``reset`` and the routes of peers, against served views."""

from __future__ import annotations

import json

import pytest

from bgpd.model.prefix import Prefix
from bgpd.model.view import Which
from tests.api.fake import FakeViews
from tests.cli.conftest import Bgpd

pytestmark = pytest.mark.netns

ROUTES = """\
PREFIX            PEER      NEXT HOP  AS PATH            MED  LOCPRF  COMMUNITIES        AGE  STATUS
10.42.0.64/26     10.1.1.1  10.1.1.1  65001 65102          -       -  -                3d04h  accepted, best
10.66.0.0/16 [7]  10.1.3.1  10.1.3.1  65003 65009 65102   50       -  65003:1 65535:0  3d04h  \
rejected: our AS 65101 is in the AS path
"""


def test_one_peer_in_detail(bgpd: Bgpd, views: FakeViews) -> None:
    """A name or an address selects one peer, with its state, timers and capabilities; as JSON the view itself."""
    shown = bgpd("peers", "10.1.1.1")

    assert 0 == shown.exit_code
    for part in ("tor1, 10.1.1.1, AS 65001, configured", "Established for 3d04h", "4-octet AS, route refresh"):
        assert part in shown.output
    assert ["tor1"] == [view["name"] for view in json.loads(bgpd("peers", "tor1", "-o", "json").output)]


@pytest.mark.parametrize("command", [["peers", "x"], ["refresh", "x"], ["reset", "x"], ["routes", "--peer", "x"]])
def test_an_unknown_peer_is_bad_input(bgpd: Bgpd, views: FakeViews, command: list[str]) -> None:
    """A peer that is not there ends each command with exit status 2 and a sentence."""
    refused = bgpd(*command)

    assert (2, "bgpd: there is no peer x\n") == (refused.exit_code, refused.stderr)


def test_refresh_asks_or_says_why_not(bgpd: Bgpd, views: FakeViews) -> None:
    """A peer without a session is not asked, and the reason is told."""
    assert "tor1 was asked to send everything again\n" == bgpd("refresh", "tor1").output
    refused = bgpd("refresh", "tor2")

    assert (1, "bgpd: there is no session with it\n") == (refused.exit_code, refused.stderr)
    assert [("refresh", "tor1")] == views.done


def test_reset_carries_its_message(bgpd: Bgpd, views: FakeViews) -> None:
    """Hardness and message are passed on; a message that no NOTIFICATION can hold is refused."""
    assert 0 == bgpd("reset", "tor1", "--hard", "--message", "für rack 7").exit_code
    assert {"peer": "tor1", "done": True} == json.loads(bgpd("reset", "tor1", "-o", "json").output)
    assert 2 == bgpd("reset", "tor1", "--message", "x" * 256).exit_code

    assert [("reset", "tor1", True, "für rack 7"), ("reset", "tor1", False, "")] == views.done


def test_routes_of_peers(bgpd: Bgpd, views: FakeViews) -> None:
    """--peer and what to show of it are passed on; a rejected route names the rule."""
    assert ROUTES == bgpd("routes", "--peer", "tor1").output
    bgpd("routes", "--advertised", "10.42.0.64/26")
    bgpd("routes", "--peer", "tor1", "--rejected")

    expected = [("tor1", Which.RECEIVED, None), (None, Which.ADVERTISED, Prefix.parse("10.42.0.64/26"))]
    assert [*expected, ("tor1", Which.REJECTED, None)] == views.asked
