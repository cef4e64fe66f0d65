"""What programs read: ``-o json`` is the views, lists at the top level."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bgpd.api.protocol import AssignRequest, AssignView
from bgpd.model.view import ExplainView, PeerView, RouteView, StatusView
from tests.api.fake import EXPLAIN, NATIVE, PEERS, ROUTES, STATUS, FakeViews
from tests.cli.conftest import Bgpd

pytestmark = pytest.mark.netns


@pytest.mark.parametrize(
    ("arguments", "kind", "expected"),
    [
        (["status"], StatusView, STATUS),
        (["peers"], list[PeerView], PEERS),
        (["routes"], list[RouteView], ROUTES),
        (["routes", "10.42.0.64/26"], list[RouteView], [NATIVE]),
        (["routes", "192.0.2.0/24"], list[RouteView], []),
        (["explain", "10.42.0.65"], ExplainView, EXPLAIN),
        (["ipam", "assign", "--handle", "w1"], AssignView, AssignView("10.42.0.7", ("10.42.0.7",))),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and isinstance(value[0], str) else "",
)
def test_json_is_the_view(bgpd: Bgpd, views: FakeViews, arguments: list[str], kind: type[Any], expected: Any) -> None:
    """JSON output holds every field of the view."""
    result = bgpd(*arguments, "-o", "json")

    assert expected == msgspec.json.decode(result.stdout, type=kind)
    assert (result.exit_code, result.stderr) == (0, "")


def test_assign_is_json_by_default(bgpd: Bgpd, views: FakeViews) -> None:
    """An assignment is asked for by programs, so it answers with JSON in one line unless told otherwise."""
    result = bgpd("ipam", "assign", "--handle", "w1", "--pool", "main")

    assert result.stdout == '{"address": "10.42.0.7", "addresses": ["10.42.0.7"], "short": []}\n'
    assert views.assigned == [("w1", "main")]


def test_assign_asks_for_what_the_options_say(bgpd: Bgpd, views: FakeViews) -> None:
    """Numbers, families, an address of one's own and attributes are passed on."""
    for arguments in (["-6"], ["-4", "-6", "--count", "1"], ["--ip", "10.42.0.9", "--attribute", "pod=web"]):
        assert 0 == bgpd("ipam", "assign", "--handle", "w", *arguments).exit_code

    assert [
        AssignRequest(handle="w", ipv4=0, ipv6=1),
        AssignRequest(handle="w", ipv4=1, ipv6=1),
        AssignRequest(handle="w", address="10.42.0.9", attributes={"pod": "web"}),
    ] == views.requests


def test_fewer_addresses_than_asked_for_are_written_and_told(bgpd: Bgpd, views: FakeViews) -> None:
    """A partial answer is written, the reason goes to stderr, and the status is 1."""
    result = bgpd("ipam", "assign", "--handle", "w", "--count", "2")

    assert ["10.42.0.7"] == msgspec.json.decode(result.stdout)["addresses"]
    assert (1, "bgpd: 1 of 2 ipv4 addresses: no more\n") == (result.exit_code, result.stderr)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--ip", "10.42.0.9", "-6"], "do not go with it"),
        (["--ip", "nonsense"], "nonsense"),
        (["--attribute", "x"], "write NAME=VALUE"),
        (["--count", "0"], "0 is not in the range"),
    ],
)
def test_a_bad_assignment_is_told(bgpd: Bgpd, views: FakeViews, arguments: list[str], part: str) -> None:
    """A request that cannot be meant ends with status 2 and what is wrong, whoever notices it."""
    result = bgpd("ipam", "assign", "--handle", "w", *arguments)

    assert (2, "") == (result.exit_code, result.stdout)
    assert part in result.stderr
