"""Files of resources: what YAML's guesses must not do, and that what is written reads back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.cli import manifest
from tests.core.resource.examples import ANYTHING, EVERY_FIELD, Resource, resources

pytestmark = pytest.mark.adapter


def values(text: str) -> list[Any]:
    places, defects = manifest.parse("text", text)
    assert [str(defect) for defect in defects] == []
    return [value for _, value in places]


def defects(text: str) -> list[str]:
    return [str(defect) for defect in manifest.parse("text", text)[1]]


def test_labels_are_text_as_written() -> None:
    """Labels, annotations and names keep what was written, whatever YAML would take it for."""
    text = """\
metadata:
  name: 1.10
  resourceVersion: 12
  creationTimestamp: 2026-11-24T06:00:00Z
  generation: 2
  labels: {a: yes, b: true, c: 1.10, d: 010, on: off, e: 'x', f: 2026-11-24, g: 0x1F}
  annotations: {bgpd.io/fallback: None}
"""

    assert values(text) == [
        {
            "metadata": {
                "name": "1.10",
                "resourceVersion": "12",
                "creationTimestamp": "2026-11-24T06:00:00Z",
                "generation": 2,
                "labels": {
                    "a": "yes",
                    "b": "true",
                    "c": "1.10",
                    "d": "010",
                    "on": "off",
                    "e": "x",
                    "f": "2026-11-24",
                    "g": "0x1F",
                },
                "annotations": {"bgpd.io/fallback": "None"},
            }
        }
    ]


def test_labels_in_lists_are_text_too() -> None:
    """The items of a list document are read as documents of their own."""
    text = "kind: NodeList\nitems:\n- metadata: {labels: {a: yes}}\n- metadata: {labels: {a: 1.0}}\n"

    assert manifest.parse("f", text)[0] == [
        ("f, document 1, item 1", {"metadata": {"labels": {"a": "yes"}}}),
        ("f, document 1, item 2", {"metadata": {"labels": {"a": "1.0"}}}),
    ]


def test_dotted_as_number_keeps_its_zero() -> None:
    """AS 1.10 is not AS 1.1, written with or without quotes, alone or in a list."""
    text = "asNumber: 1.10\nlocalASNumber: 65001\nasPathPrefix: [1.10, 65001]\nother: 1.10\nprependASPath: {prefix: [2.20]}\n"

    assert values(text) == [
        {
            "asNumber": "1.10",
            "localASNumber": 65001,
            "asPathPrefix": ["1.10", 65001],
            "other": 1.1,
            "prependASPath": {"prefix": ["2.20"]},
        }
    ]


def test_scalars_elsewhere() -> None:
    """Outside of texts, YAML 1.2 holds, and yes and no are as Calico's tools read them; doubtful numbers stay text."""
    text = "{a: yes, b: Off, c: 12, d: -7, e: 0x10, f: 1.5, g: ~, h: , i: 010, j: 1_000, k: 1:30, l: 2026-11-24, m: .inf, n: '5'}"

    assert values(text) == [
        {
            "a": True, "b": False, "c": 12, "d": -7, "e": 16, "f": 1.5, "g": None, "h": None, "i": "010", "j": "1_000",
            "k": "1:30", "l": "2026-11-24", "m": ".inf", "n": "5",
        }
    ]  # fmt: skip


def test_json_is_read() -> None:
    """JSON is read with the types that it says, tabs and large numbers included."""
    assert values('{"kind": "Node",\n\t"spec": {"a": [1, true, null, "x"]}}') == [
        {"kind": "Node", "spec": {"a": [1, True, None, "x"]}}
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", "text, document 1: line 2: a is given twice"),
        ("a: 1\n---\n? [1]\n: 2\n", "text, document 2: line 3: a field's name must be text"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "text, document 1: line 3: << is not supported: write the fields out"),
        ("a: *x\n", "text, document 1: is not YAML: line 1, column 4: found undefined alias"),
        ("a: &x [*x]\n", "text, document 1: line 1: has more than 50 objects and lists within each other"),
        ("a: {b: {\n", "text, document 1: is not YAML: line 2, column 1: did not find expected node content"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, expected: str) -> None:
    """A text that is no YAML, or says something twice, is refused with its document and line."""
    assert defects(text) == [expected]


def test_one_bad_document_hides_no_other() -> None:
    """The documents after one with a defect are read, and its defect is told."""
    places, found = manifest.parse("f", "a: 1\na: 2\n---\nb: 1\n")

    assert places == [("f, document 2", {"b": 1})]
    assert len(found) == 1


def test_aliases_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aliases of aliases are bounded by the number of values that they stand for."""
    monkeypatch.setattr(manifest, "VALUES_MAX", 10_000)
    lines = ["a0: &a0 [1, 2]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]

    assert "has more than 10000 values" in defects("\n".join(lines))[0]


def test_directory_is_read_in_order(tmp_path: Path) -> None:
    """A directory's files are read by name, others than resources and directories within are not, unless asked for."""
    (tmp_path / "b.yaml").write_text("x: 2\n")
    (tmp_path / "a.json").write_text('{"x": 1}')
    (tmp_path / "c.txt").write_text("no: yaml")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.yml").write_text("x: 3\n---\n---\nx: 4\n")

    flat, none = manifest.read([str(tmp_path)])
    deep, _ = manifest.read([str(tmp_path)], recursive=True)

    assert ([value for _, value in flat], none) == ([{"x": 1}, {"x": 2}], [])
    assert [value["x"] for _, value in deep] == [1, 2, 3, 4]
    assert [str(one) for one in manifest.read([str(tmp_path / "lost")])[1]] == [
        f"{tmp_path / 'lost'}: cannot be read: No such file or directory"
    ]


@given(st.lists(resources() | st.sampled_from(list(EVERY_FIELD.values())), max_size=3))
def test_resources_read_back(found: list[Resource]) -> None:
    """Any resources that are written read back equal, unknown fields and odd labels among them."""
    assert values(manifest.dump(found)) == found


@given(ANYTHING)
def test_any_value_reads_back(value: Any) -> None:
    """Any JSON value below an unknown field reads back equal."""
    assert values(manifest.dump([{"kind": "Node", "spec": {"x": value}}])) == [{"kind": "Node", "spec": {"x": value}}]


@given(ANYTHING)
def test_json_reads_back(value: Any) -> None:
    """What is written as JSON reads back equal."""
    assert values(manifest.to_json({"kind": "Node", "spec": {"x": value}})) == [{"kind": "Node", "spec": {"x": value}}]
