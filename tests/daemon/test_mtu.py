"""The file with the MTU for workloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgpd.core.state import State
from bgpd.daemon.mtu import MtuFile
from bgpd.model.notice import Notice
from tests.core import world as w

pytestmark = pytest.mark.core


def test_file_has_the_number_and_follows_it(tmp_path: Path) -> None:
    """It is a number and the end of a line, for all to read; nothing is written before pools and links are known."""
    path = tmp_path / "deep" / "mtu"
    told: list[Notice] = []
    early = MtuFile(path, State(), told.append)
    early.look()
    assert not path.exists()

    state = w.running().state
    MtuFile(path, state, told.append).look()
    assert "1450\n" == path.read_text()
    assert 0o644 == path.stat().st_mode & 0o777
    assert [path] == list(path.parent.iterdir())
    assert [] == told


def test_place_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    """A path that cannot be written is told with its reason, and not again until the number changes."""
    (tmp_path / "file").write_text("")
    told: list[Notice] = []
    mtu = MtuFile(tmp_path / "file" / "mtu", w.running().state, told.append)
    mtu.look()
    mtu.look()
    assert ["mtu.unwritten"] == [notice.name for notice in told]
