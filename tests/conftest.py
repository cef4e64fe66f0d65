"""What holds for every test: with CI=true a skipped test is a failure."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import settings

from tests.vm.plugin import Guests

# A run that guards a change must not fail by chance: the same examples each time. Elsewhere Hypothesis goes on searching.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "search")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

MARKS = {"core", "adapter", "netns", "lab", "bench", "vm"}


def pytest_configure(config: pytest.Config) -> None:
    """Tests for a virtual machine run in one, except where we are in it already."""
    if not os.environ.get("BGPD_VM_GUEST"):
        config.pluginmanager.register(Guests())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test without a tier would never run: refuse it."""
    lost = [item.nodeid for item in items if not MARKS & {mark.name for mark in item.iter_markers()}]
    if lost:
        raise pytest.UsageError(f"no tier is marked ({', '.join(sorted(MARKS))}): {', '.join(lost[:5])}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where nobody would read that it was skipped."""
    return _refused((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """As above, for a module that skips itself."""
    return _refused((yield))


def _refused(report: Report) -> Report:
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which nothing may be here: {report.longrepr}"
    return report
