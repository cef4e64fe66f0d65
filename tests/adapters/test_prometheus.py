"""The exposition, as Prometheus' own parser reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bgpd.adapters.prometheus import Exposition, Histogram

pytestmark = pytest.mark.core


@given(st.dictionaries(st.sampled_from(["peer", "address"]), st.text(max_size=20)), st.floats(allow_nan=False))
def test_labels_and_values_are_read_as_they_were_written(labels: dict[str, str], value: float) -> None:
    """Any label text, quotes, backslashes and line ends included, and any number come back."""
    out = Exposition()
    out.gauge("bgpd_thing", "A thing.", [(labels, value)])
    (family,) = text_string_to_metric_families(out.render().decode())
    assert ("bgpd_thing", "gauge", "A thing.") == (family.name, family.type, family.documentation)
    assert [("bgpd_thing", labels, value)] == [(one.name, one.labels, one.value) for one in family.samples]


@given(st.lists(st.floats(0, 20), max_size=50))
def test_a_histogram_counts_each_observation_in_every_bucket_above_it(values: list[float]) -> None:
    """Buckets are cumulative, the last holds all, and the sum is that of the observations."""
    histogram = Histogram((0.5, 1.0, 10.0))
    for value in values:
        histogram.observe(value)
    out = Exposition()
    out.histogram("bgpd_time_seconds", "A time.", histogram)
    (family,) = text_string_to_metric_families(out.render().decode())
    found = {(one.name, one.labels.get("le")): one.value for one in family.samples}
    expected = {("bgpd_time_seconds_bucket", str(b)): float(sum(v <= b for v in values)) for b in (0.5, 1.0, 10.0)}
    expected["bgpd_time_seconds_bucket", "+Inf"] = expected["bgpd_time_seconds_count", None] = float(len(values))
    assert pytest.approx(sum(values)) == found.pop(("bgpd_time_seconds_sum", None))
    assert expected == found


def test_a_counter_is_read_as_one() -> None:
    """A family whose name ends with _total is a counter."""
    out = Exposition()
    out.counter("bgpd_events_total", "Events.", [({}, 3)])
    (family,) = text_string_to_metric_families(out.render().decode())
    assert ("counter", 3.0) == (family.type, family.samples[0].value)
