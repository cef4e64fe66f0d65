"""Runs tests marked ``vm`` in a virtual machine, and reports each of them here by its own name, as if it had run here.

A test marked ``vm`` alone always runs there. One that is marked ``netns`` as well runs there under ``-m vm``, and here otherwise.
All tests of one kind of guest share one boot, which begins with the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm.machine import Lost, Machine


class Guests:
    """Owns the guest that runs at the moment, and what it has reported."""

    def __init__(self) -> None:
        self._machine: Machine | None = None
        self._systemd: bool | None = None
        self._lines: Iterator[dict[str, Any]] = iter(())
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self._finished: set[str] = set()
        self._lost = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Take the reports of *item* from the guest; None: it runs here."""
        if not _in_guest(item):
            return None
        systemd = _systemd(item)
        if systemd is not self._systemd:
            self._boot(
                [each.nodeid for each in item.session.items if _in_guest(each) and _systemd(each) is systemd], systemd
            )
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._wait(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self) -> None:
        self._end()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """One boot after the other; and the limit of a single test holds in the guest, where it runs."""
        items.sort(key=lambda item: (_in_guest(item), _in_guest(item) and _systemd(item)))
        for item in items:
            if _in_guest(item):
                item.add_marker(pytest.mark.timeout(0), append=False)

    def _boot(self, tests: list[str], systemd: bool) -> None:
        self._end()
        self._systemd, self._lost = systemd, ""
        try:
            self._machine = Machine(tests, systemd=systemd)
        except Lost as error:
            self._lost = str(error)
            return
        self._lines = self._machine.reports()

    def _wait(self, item: pytest.Item) -> list[pytest.TestReport]:
        name = item.nodeid
        try:
            while name not in self._finished and not self._lost:
                line = next(self._lines)
                if "$finished" in line:
                    self._finished.add(line["$finished"])
                else:
                    report = pytest.TestReport._from_json(line)
                    self._reports.setdefault(report.nodeid, []).append(report)
        except Lost as error:
            self._lost = str(error)
        reports = self._reports.pop(name, [])
        if name not in self._finished:
            reports.append(pytest.TestReport(name, item.location, {}, "failed", self._lost, "call"))
            self._lost = "did not run: see the first test of this guest that failed"
        return reports

    def _end(self) -> None:
        if self._machine is not None:
            self._machine.close()
            self._machine = None


def _in_guest(item: pytest.Item) -> bool:
    alone = item.get_closest_marker("netns") is None
    return item.get_closest_marker("vm") is not None and (alone or item.config.option.markexpr == "vm")


def _systemd(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("vm")
    return mark is not None and mark.kwargs.get("init") == "systemd"
