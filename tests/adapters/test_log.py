"""The log: what a failure tells, and what it must not."""

from __future__ import annotations

import json

import pytest
import structlog

from bgpd.adapters import log

pytestmark = pytest.mark.adapter


def fail(secret: str) -> None:
    raise RuntimeError(f"failed after {len(secret)} bytes")


def test_a_failure_is_told_with_its_place_and_without_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback of what ends the process names files and lines; a local variable may hold a password."""
    log.configure("info", "json")
    try:
        fail("hush")
    except RuntimeError as error:
        structlog.get_logger().error("daemon.failed", exc_info=error)
    finally:
        structlog.reset_defaults()

    line = capsys.readouterr().err
    told = json.loads(line)
    assert "failed after 4 bytes" == told["exception"][0]["exc_value"]
    assert ["fail"] == [frame["name"] for frame in told["exception"][0]["frames"][1:]]
    assert "hush" not in line


def test_the_level_changes_while_running(capsys: pytest.CaptureFixture[str]) -> None:
    """A level that is set counts from the next line on; "critical" is silence, and "auto" began as info."""
    log.configure("auto", "json")
    try:
        log.tell("peer.lost", {"step": 1})
        log.tell("peer.established", {"step": 2})
        log.set_level("error")
        log.tell("peer.lost", {"step": 3})
        log.set_level("critical")
        structlog.get_logger().error("peer.lost", step=4)
        log.set_level("debug")
        structlog.get_logger().debug("peer.lost", step=5)
    finally:
        structlog.reset_defaults()

    lines = capsys.readouterr().err.splitlines()
    assert [1, 2, 5] == [json.loads(line)["step"] for line in lines]
