"""Documents of resources: read from files, directories and stdin; written as YAML.

Theory of operation. YAML's guesses at types ruin labels (``yes``, ``1.10``), names (``123``) and AS numbers (``1.10``), so
nodes are composed by PyYAML and turned into values here, knowing where they stand: names, labels and annotations are text
as written, AS numbers keep a text that looks like a fraction, dates stay text. Elsewhere a plain scalar is what YAML 1.2
says, and ``yes``, ``no``, ``on``, ``off`` are true and false as Calico's own tools read them.

Laws: everything wrong with the files is named with its place, not the first of it; what is written here reads back equal.
JSON is read as JSON, whose types are what they say.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from bgpd.core.resource.check import Defect

SUFFIXES: Final = (".yaml", ".yml", ".json")
"""Files of a directory that are read."""
BYTES_MAX: Final = 64 * 1024 * 1024
"""Size of one file: an export of some ten thousand resources."""
DEPTH_MAX: Final = 50
"""Objects and lists within each other; Calico's resources have up to ten."""
VALUES_MAX: Final = 5_000_000
"""Values of one file once its aliases are written out: an alias of aliases grows without bound."""

_AS_FIELDS: Final = frozenset({"asNumber", "localASNumber", "asPathPrefix", "prefix"})
_TEXT_FIELDS: Final = frozenset({"name", "namespace", "uid", "resourceVersion", "creationTimestamp"})
"""Of metadata: text as written, as labels and annotations are."""
_TEXT_MAPS: Final = frozenset({"labels", "annotations"})
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_TRUE: Final = frozenset({"true", "yes", "on"})

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

Place = tuple[str, Any]
"""Where a document comes from, and the document."""


class _NodeError(ValueError):
    """A node that cannot be a value, and its line."""

    def __init__(self, node: yaml.Node, rule: str) -> None:
        super().__init__(f"line {node.start_mark.line + 1}: {rule}")


def read(names: Sequence[str], *, recursive: bool = False) -> tuple[list[Place], list[Defect]]:
    """Read the documents of files and directories (``-`` is stdin), and all that keeps one from being read."""
    places: list[Place] = []
    defects: list[Defect] = []
    for name in names:
        for origin, data in _files(name, recursive, defects):
            _documents(origin, data, places, defects)
    return places, defects


def parse(origin: str, text: str) -> tuple[list[Place], list[Defect]]:
    """Read the documents of a text."""
    places: list[Place] = []
    defects: list[Defect] = []
    _documents(origin, text.encode(), places, defects)
    return places, defects


def dump(resources: Iterable[Any]) -> str:
    """Write resources as the documents of one YAML text, fields in their order."""
    return yaml.dump_all(
        list(resources), Dumper=_DUMPER, sort_keys=False, allow_unicode=True, default_flow_style=False, width=2**16
    )


def _files(name: str, recursive: bool, defects: list[Defect]) -> Iterator[tuple[str, bytes]]:
    if name == "-":
        yield "stdin", sys.stdin.buffer.read(BYTES_MAX + 1)
        return
    path = Path(name)
    try:
        if path.is_dir():
            found = sorted(path.rglob("*") if recursive else path.iterdir())
            files = [one for one in found if one.suffix in SUFFIXES and one.is_file()]
            if not files:
                defects.append(Defect(name, "", None, f"the directory holds no file named {', '.join(SUFFIXES)}"))
        else:
            files = [path]
        for one in files:
            with one.open("rb") as file:
                yield str(one), file.read(BYTES_MAX + 1)
    except OSError as error:
        defects.append(Defect(str(error.filename or name), "", None, f"cannot be read: {error.strerror}"))


def _documents(origin: str, data: bytes, places: list[Place], defects: list[Defect]) -> None:
    if len(data) > BYTES_MAX:
        defects.append(Defect(origin, "", None, f"must not be larger than {BYTES_MAX} bytes"))
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        defects.append(Defect(origin, "", None, f"is not UTF-8 text: byte {error.start} is wrong"))
        return
    if text.lstrip()[:1] in {"{", "["}:
        try:
            places += _unlisted(f"{origin}, document 1", msgspec.json.decode(text))
        except msgspec.DecodeError:
            pass  # YAML's flow form begins like this as well
        else:
            return
    budget = [VALUES_MAX]
    number = 0
    try:
        for node in yaml.compose_all(text, Loader=_LOADER):
            number += 1
            where = f"{origin}, document {number}"
            try:
                value = _value(node, (), budget)
            except _NodeError as error:
                defects.append(Defect(where, "", None, str(error)))
                continue
            places += _unlisted(where, value)
    except yaml.YAMLError as error:
        defects.append(Defect(f"{origin}, document {number + 1}", "", None, _yaml_rule(error)))
    except RecursionError:
        defects.append(Defect(f"{origin}, document {number + 1}", "", None, "is nested too deeply"))


def _yaml_rule(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"is not YAML: {where}{problem}"


def _unlisted(where: str, value: Any) -> Iterator[Place]:
    """Give a document, or those of a list (``kind: IPPoolList``, as `get -o yaml` writes several); nothing if it is empty."""
    if value is None:
        return
    items = value.get("items") if isinstance(value, dict) else None
    if isinstance(value, list):
        items = value
    elif not str(value.get("kind", "") if isinstance(value, dict) else "").endswith("List"):
        items = None
    if not isinstance(items, list):
        yield where, value
        return
    for index, item in enumerate(items):
        yield f"{where}, item {index + 1}", item


# ------------------------------------------------------------------ nodes to values


def _value(node: yaml.Node, path: tuple[str, ...], budget: list[int]) -> Any:
    budget[0] -= 1
    if budget[0] < 0:
        raise _NodeError(node, f"has more than {VALUES_MAX} values once its aliases are written out")
    if len(path) > DEPTH_MAX:
        raise _NodeError(node, f"has more than {DEPTH_MAX} objects and lists within each other")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, path)
    if isinstance(node, yaml.SequenceNode):
        # A list's entries stand where the list does: the entries of asPathPrefix are AS numbers.
        return [_value(item, (*path, "[]"), budget) for item in node.value]
    assert isinstance(node, yaml.MappingNode)
    found: dict[str, Any] = {}
    for key, item in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _NodeError(key, "a field's name must be text")
        if key.tag == "tag:yaml.org,2002:merge":
            raise _NodeError(key, "<< is not supported: write the fields out")
        if key.value in found:
            raise _NodeError(key, f"{key.value} is given twice")
        found[key.value] = _value(item, (*path, key.value), budget)
    return found


def _scalar(node: yaml.ScalarNode, path: tuple[str, ...]) -> Any:
    """Read a scalar; PyYAML's tag says what YAML 1.1 takes it for, which is taken where YAML 1.2 agrees."""
    text, sort = str(node.value), node.tag.removeprefix("tag:yaml.org,2002:")
    if node.style or sort == "str":  # a plain scalar has None, or an empty text of the C loader
        return text
    if sort == "null":
        return None
    if _is_text(path):
        return text
    if sort == "bool":
        return text.lower() in _TRUE
    if sort == "int":
        # What is neither (010, 1_000, 1:30) has another meaning in each version of YAML.
        return int(text, 0) if (_INTEGER.fullmatch(text) or _HEX.fullmatch(text)) and len(text) <= 20 else text
    if sort == "float" and _FLOAT.fullmatch(text) and not _AS_FIELDS.intersection(path[-2:]):
        return float(text)
    return text


def _is_text(path: tuple[str, ...]) -> bool:
    """Whether a value's text is its meaning: metadata's names, labels and annotations, also those of a list's items."""
    if "metadata" not in path:
        return False
    below = path[path.index("metadata") + 1 :]
    return bool(below) and (below[0] in _TEXT_MAPS or (len(below) == 1 and below[0] in _TEXT_FIELDS))


def list_of(kind: str, api_version: str, resources: Sequence[Any]) -> dict[str, Any]:
    """Return the list document that calicoctl writes for several resources of a kind."""
    return {"kind": f"{kind}List", "apiVersion": api_version, "metadata": {}, "items": list(resources)}


def to_json(value: Any) -> str:
    """Write a value as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
