"""``bgpd fib``: pages, differences, exit status."""

from __future__ import annotations

import msgspec
import pytest

from bgpd.model.view import FibPage, FibQuery, FibStatus
from tests.api.fake import FIB, FakeViews
from tests.cli.conftest import Bgpd

pytestmark = pytest.mark.adapter

TABLE = """\
PREFIX                   DESIRED                                       ACTUAL  PATH          NHID  STATUS        FOR  REASON
10.42.0.64/26            via 10.1.1.1 dev eth1, via 10.1.2.1 dev eth2  same    native  1650917376  programmed      -  -
10.42.0.128/26 metric 5  via 10.0.0.3 dev vxlan.bgpd onlink            -       tunnel           -  failed      3d04h  EEXIST: File exists
"""


def test_page_is_a_table_and_says_what_follows(bgpd: Bgpd, views: FakeViews) -> None:
    """Routes stand one a row, the actual one where it differs; the next page is named on stderr."""
    result = bgpd("fib", "10.42.0.0/16", "--limit", "2", "--status", "failed", "--after", "10.0.0.0/8")

    assert TABLE == result.stdout
    assert "2 of 3 shown; the next: --after '10.42.0.128/26 metric 5'\n" == result.stderr
    assert 0 == result.exit_code
    wanted = FibQuery(prefix="10.42.0.0/16", after="10.0.0.0/8", status=FibStatus.FAILED, limit=2)
    assert wanted == views.fib_asked


def test_json_is_the_page(bgpd: Bgpd, views: FakeViews) -> None:
    """``-o json`` is the page as the API has it."""
    assert views.fib_asked is None
    assert FIB == msgspec.json.decode(bgpd("fib", "-o", "json").stdout, type=FibPage)


def test_diff_ends_with_1_where_something_differs(bgpd: Bgpd, views: FakeViews) -> None:
    """Differences show what kind of object each is, and the exit status says whether there are any."""
    assert views.fib_asked is None
    some, none = bgpd("fib", "--diff"), bgpd("fib", "--diff", "--limit", "1")

    assert (1, 2) == (some.exit_code, len(some.stdout.splitlines()))
    assert some.stdout.splitlines()[1].startswith("route")
    assert (0, "the kernel is as desired\n") == (none.exit_code, none.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["10.42.0.1/16"], "10.42.0.1/16"),
        (["--diff", "--status", "failed"], "leave PREFIX, --status and --after away"),
        (["--after", "nonsense"], "'nonsense' is no place of a route"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_bad_questions_are_refused(bgpd: Bgpd, views: FakeViews, arguments: list[str], said: str) -> None:
    """A prefix with host bits, options that do not go together, a bad key and no rows at all: exit status 2, and why."""
    assert views.fib_asked is None
    result = bgpd("fib", *arguments)

    assert 2 == result.exit_code
    assert said in result.stderr
