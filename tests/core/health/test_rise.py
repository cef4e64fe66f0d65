"""The verdict of a health check: at once the first time, then by results in a row."""

from __future__ import annotations

import pytest

from bgpd.core.health.rise import Verdict

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("results", "verdicts"),
    [
        ("+", [True]),
        ("-", [False]),
        ("+--+--", [True]),
        ("+---", [True, False]),
        ("-+-+", [False]),
        ("-++---++", [False, True, False, True]),
    ],
)
def test_verdict_changes_by_results_in_a_row(results: str, verdicts: list[bool]) -> None:
    """The first result counts, then two passes or three failures in a row do; a result between begins anew."""
    verdict = Verdict(rise=2, fall=3)

    found = [verdict.healthy for result in results if verdict.take(result == "+")]

    assert found == verdicts
