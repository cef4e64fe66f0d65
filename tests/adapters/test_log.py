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
