"""Where values come from: the line of the file, the environment, the default; and what differs between two configurations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bgpd.config.document import FILE_LIMIT_BYTES, Origin
from bgpd.config.environment import VALUE_LIMIT_CHARS
from bgpd.config.error import ConfigError
from bgpd.config.kinds import section_of
from bgpd.config.load import load, load_document
from bgpd.config.schema import Config, NodeSection, Section
from bgpd.config.values import AT_START, Change, When, changes, merged, values, when
from bgpd.daemon.live import TAKEN
from bgpd.model.prefix import Address

pytestmark = pytest.mark.core

TEXT = '''# the first line
[node]
name = "node-a"   # a comment
address = "10.0.0.1/24"
asn = 64512
labels = { rack = "a", gpu = true }

[ecmp]
limit = 8

[[peer]]
name = "tor1"
address = "192.0.2.1"
asn = 65001
local_address = "192.0.2.2"
families = [
  "ipv4",   # the one
  "ipv6",
]

[[peer]]
name = "tor2"
address = "192.0.2.5"
asn = 65002
local_address = "192.0.2.6"
[peer.bfd]
min_tx_ms = 100
password = { name = """bfd""", key = 'tor2' }
[[announce]]
prefixes = ["203.0.113.53/32"]
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bgpd.toml"
    path.write_text(TEXT)
    return path


def said(file: Path, environment: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as raised:
        load(file, environment)
    return str(raised.value)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("node", 2),
        ("node.name", 3),
        ("node.labels.gpu", 6),
        ("ecmp.limit", 9),
        ("peer[0]", 11),
        ("peer[0].families", 16),
        ("peer[0].families[1]", 16),
        ("peer[1].asn", 24),
        ("peer[1].bfd", 26),
        ("peer[1].bfd.min_tx_ms", 27),
        ("peer[1].bfd.password.key", 28),
        ("announce[0].prefixes[0]", 30),
        ("fallback.kind", 0),
    ],
)
def test_each_value_has_its_line(file: Path, path: str, line: int) -> None:
    """Tables, lists of tables, inline tables and values over several lines are found on the line where they begin."""
    _, document = load_document(file, {})

    assert Origin(line) == document.origin(path)


def test_a_defect_names_its_line(file: Path) -> None:
    """What is wrong is told with its line; what is missing with the line of the table that misses it."""
    file.write_text(
        TEXT.replace("min_tx_ms = 100", "min_tx_ms = 1\nmin_rxms = 1").replace('address = "192.0.2.5"\n', "")
    )

    missing, low, unknown = sorted(said(file, {}).splitlines(), key=lambda line: int(line.split(":")[1]))

    assert f"{file}:21: peer[1].address: is required" == missing
    assert f"{file}:26: peer[1].bfd.min_tx_ms = 1: must be a whole number >= 50" == low
    assert f"{file}:27: peer[1].bfd.min_rxms = 1: unknown key; did you mean 'min_rx_ms'?" == unknown


def test_the_environment_takes_the_place_of_the_file(file: Path) -> None:
    """BGPD_SECTION_KEY is read as in the file, text without quotes, too; a list of sections as a whole; the rest stays."""
    environment = {
        "BGPD_ECMP_LIMIT": "4",
        "BGPD_NODE_NAME": "node-b",
        "BGPD_NODE_LABELS": '{ rack = "b" }',
        "BGPD_FALLBACK_RESTORE_AFTER_S": "0.5",
        "BGPD_BGP_MESH": "true",
        "BGPD_MQTT_VERSION": "5",
        "BGPD_KERNEL_SOURCE_IPV4": "10.0.0.9",
        "BGPD_POOL_CIDR": '"10.65.0.0/16"',
        "BGPD_CHECK": '[{ name = "dns", tcp = "127.0.0.1:53" }]',
    }

    config, document = load_document(file, environment)

    assert (4, "node-b", {"rack": "b"}) == (config.ecmp.limit, config.node.name, config.node.labels)
    assert (0.5, True, "5") == (config.fallback.restore_after_s, config.bgp.mesh, config.mqtt.version)
    assert Address.parse("10.0.0.9") == config.kernel.source_ipv4
    assert config.pool is not None
    assert "10.65.0.0/16" == str(config.pool.cidr)
    assert ["dns"] == [check.name for check in config.check]
    assert 64512 == config.node.asn
    assert Origin(variable="BGPD_ECMP_LIMIT") == document.origin("ecmp.limit")
    assert Origin(variable="BGPD_CHECK") == document.origin("check[0].tcp")
    assert Origin(variable="BGPD_NODE_LABELS") == document.origin("node.labels")
    assert Origin() == document.origin("node.labels.gpu")
    assert Origin(5) == document.origin("node.asn")


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("BGPD_ECMP_LIMIT", "900", "BGPD_ECMP_LIMIT: ecmp.limit = 900: must be a whole number <= 128"),
        ("BGPD_ECMP_LIMIT", "many", 'BGPD_ECMP_LIMIT: ecmp.limit = "many": must be a whole number, not text'),
        ("BGPD_ECMP_LIMT", "4", "BGPD_ECMP_LIMT: ecmp: names no key of [ecmp]; did you mean BGPD_ECMP_LIMIT?"),
        ("BGPD_LOG_ZZZ", "4", "BGPD_LOG_ZZZ: log: names no key of [log], which knows level, format"),
        ("BGPD_LOGG_LEVEL", "info", "BGPD_LOGG_LEVEL: names no section; did you mean BGPD_LOG_…?"),
        ("BGPD_POOL_NAME", "p", "BGPD_POOL_NAME: pool.cidr: is required"),
        (
            "BGPD_CHECK",
            '[{ name = "x" }]',
            "BGPD_CHECK: check[0] = {…}: must have exactly one of command, tcp and http",
        ),
        ("BGPD_CHECK", "[", 'BGPD_CHECK: check = "[": is a list: write [[check]]'),
        (
            "BGPD_METRICS_PASSWORD",
            "hush",
            "BGPD_METRICS_PASSWORD: metrics.password = …: is a table: write [metrics.password]",
        ),
        (
            "BGPD_NODE_NAME",
            "n" * (VALUE_LIMIT_CHARS + 1),
            "BGPD_NODE_NAME: node.name: must not be longer than 65536 characters",
        ),
    ],
)
def test_a_wrong_variable_is_named(file: Path, variable: str, text: str, expected: str) -> None:
    """A value of the wrong kind or range, an unknown key and a misspelt section are told by the variable's name, without secrets."""
    assert said(file, {variable: text}).startswith(expected)


def test_variables_of_others_are_left_alone(file: Path) -> None:
    """What Kubernetes sets for a service named bgpd, our own options and other programs' variables say nothing."""
    others = {"BGPD_PORT": "tcp://10.0.0.1:1", "BGPD_PORT_179_TCP": "x", "BGPD_SERVICE_HOST": "x", "BGPD_CONFIG": "/x"}

    assert load(file) == load(file, {**others, "BGPD_SOCKET": "/x", "BGPD_STORE": "x", "ECMP_LIMIT": "1"})


def test_a_huge_or_deep_file_is_refused(file: Path) -> None:
    """A file larger than the bound, or nested beyond what can be read, is a defect of the file, no traceback."""
    file.write_text("#" * (FILE_LIMIT_BYTES + 1))
    assert said(file, {}) == f"{file}: the file is larger than {FILE_LIMIT_BYTES} bytes"

    file.write_text(f"a = {'[' * 100_000}")
    assert said(file, {}).startswith(f"{file}: the file is not TOML")


def test_values_names_all_of_the_schema_once(file: Path) -> None:
    """Every key is there once, in the order of the schema."""
    paths = [one.path for one in values(load(file))]

    assert len(set(paths)) == len(paths)
    assert {"node.asn", "peer[1].bfd.multiplier", "announce[0].prefixes", "log.format", "pool"} <= set(paths)


def test_changes_are_told_by_name_and_by_when(file: Path) -> None:
    """A peer is known by its name, whatever its place; what waits for the next start is told apart."""
    before = load(file)
    first, second = TEXT.index("[[peer]]"), TEXT.rindex("[[peer]]")
    end = TEXT.index("[[announce]]")
    file.write_text(TEXT[:first] + TEXT[second:end] + TEXT[first:second] + TEXT[end:])
    assert [] == changes(before, load(file))

    file.write_text(TEXT.replace("asn = 65002", "asn = 65003").replace("asn = 64512", "asn = 64513"))
    after = load(file)

    assert changes(before, after) == [
        Change("node.asn", 64512, 64513, When.START),
        Change("peer[tor2].asn", 65002, 65003, When.RELOAD),
    ]
    taken = merged(before, after)
    assert [Change("node.asn", 64512, 64513, When.START)] == changes(taken, after)
    assert [Change("peer[tor2].asn", 65002, 65003, When.RELOAD)] == changes(before, taken)


def test_the_example_lists_what_waits_for_a_start() -> None:
    """The comment at the top of the example names each section, and each key, whose change waits for the next start."""
    text = (Path(__file__).parents[2] / "config" / "bgpd.toml").read_text()
    (sentence,) = re.findall(r"which it names: (.*?)\. ", text.replace("\n# ", " "))
    named = {
        each.partition(" ")[0].partition(".")[0]
        for each in re.split(r", | and ", re.sub(r" \(but .*?\)", "", sentence))
    }

    assert AT_START.keys() == named - {"vxlan_port"}
    assert "fallback.vxlan_vni and vxlan_port" in sentence
    assert {"vxlan_vni", "vxlan_port"} == AT_START["fallback"]
    assert "node (but its labels)" in sentence
    assert {"labels"} == {name for name in NodeSection.__struct_fields__ if name not in AT_START["node"]}


def ranged(section: type[Section] = Config, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each number's path and its largest value as the example writes it."""
    for field in msgspec.structs.fields(section):
        where = f"{path}.{field.name}" if path else field.name
        inner, _ = section_of(field.type)
        if inner is not None:
            yield from ranged(inner, where)
            continue
        information = msgspec.inspect.type_info(field.type)
        kinds = information.types if isinstance(information, msgspec.inspect.UnionType) else (information,)
        for kind in kinds:
            if isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType) and kind.le is not None:
                yield where, f"{kind.le:.0f}"


def test_the_example_states_every_range() -> None:
    """Each number of the schema has a range, and the comment beside its key, or below it, says where that ends."""
    text = (Path(__file__).parents[2] / "config" / "bgpd.toml").read_text()
    found = dict(ranged())

    assert len(found) > 30
    for path, largest in found.items():
        section, key = path.split(".")[:2]
        part = text.partition(f"[{section}]")[2]
        line = re.search(rf"^(# )?(\w+ = .*)?\b{key}\b = .*\n( +# .*\n)*", part, re.MULTILINE)
        assert line is not None, path
        if section != "pool":  # whose range is that of a family
            assert f"to {largest}" in line.group(0), path


def test_what_waits_for_a_start_exists(file: Path) -> None:
    """Every key in the table of what waits for the next start is one of the schema, and whole sections wait as a whole."""
    config = load(file)
    for section, keys in AT_START.items():
        names = {name for name in keys if name != "*"}
        assert not names or names <= set(getattr(config, section).__struct_fields__)
    assert {When.START} == {when(path) for path in ("store.url", "pool", "pool.cidr", "kernel.table", "log.format")}
    assert {When.RELOAD} == {when(path) for path in ("kernel.compare_s", "peer[x].port", "log.level", "node.labels.a")}
    assert isinstance(merged(config, config), Config)


def test_every_section_waits_or_is_taken_over(file: Path) -> None:
    """No section is forgotten by a reload: as a whole it waits for the next start, or what takes over looks at it."""
    whole = {section for section, keys in AT_START.items() if "*" in keys}

    assert set(Config.__struct_fields__) == whole | TAKEN
    assert not whole & TAKEN
