"""``bgpd cleanup`` beside a daemon; what it does to a kernel is in tests/netns/test_cleanup.py."""

from __future__ import annotations

import pytest

from tests.api.fake import FakeViews
from tests.cli.conftest import Bgpd

pytestmark = pytest.mark.adapter


def test_it_refuses_while_a_daemon_runs(bgpd: Bgpd, views: FakeViews) -> None:
    """A daemon that answers would put everything back: exit status 1, and how to mend it."""
    assert views.assigned == []
    result = bgpd("cleanup")

    assert 1 == result.exit_code
    assert "a daemon runs behind" in result.stderr
    assert "stop it first, or say --force" in result.stderr
