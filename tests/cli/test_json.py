"""What programs read: ``-o json`` is the views, lists at the top level."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bgpd.api.protocol import AssignView
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
        (["ipam", "assign", "--handle", "w1"], AssignView, AssignView("10.42.0.7")),
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

    assert result.stdout == '{"address": "10.42.0.7"}\n'
    assert views.assigned == [("w1", "main")]
