"""Reading containerlab's files: what is accepted, what is refused, and how a refusal reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgpd.lab.topology import Bind, Endpoint, Link, Topology, TopologyError, expand, load

pytestmark = pytest.mark.core

TWO_TOR = Path(__file__).parents[2] / "containerlab" / "two-tor" / "two-tor.clab.yml"

SMALL = """
name: small
topology:
  defaults: {kind: linux}
  nodes:
    a: {image: alpine}
    b: {image: "registry.example/folder/frr:10.2"}
  links:
    - endpoints: ["a:eth1", "b:eth1"]
"""


def read(tmp_path: Path, text: str, **env: str) -> Topology:
    """Load a file of this text."""
    file = tmp_path / "x.clab.yml"
    file.write_text(text, encoding="utf-8")
    return load(file, env)


def refusal(tmp_path: Path, text: str) -> str:
    """What loading this text says; always begins with the file."""
    with pytest.raises(TopologyError) as caught:
        read(tmp_path, text)
    name, _, rule = str(caught.value).partition(": ")
    assert str(tmp_path / "x.clab.yml") == name
    return rule


def test_nodes_and_links_are_read(tmp_path: Path) -> None:
    """A file's nodes and links are the lab's, and a namespace is named as the container would be."""
    lab = read(tmp_path, SMALL)

    assert [("a", "alpine"), ("b", "frr")] == [(node.name, node.image_name) for node in lab.nodes]
    assert (Link(Endpoint("a", "eth1"), Endpoint("b", "eth1")),) == lab.links
    assert "clab-small-a" == lab.netns("a")
    assert (("eth1", Endpoint("b", "eth1")),) == lab.links_of("a")


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("lab", "lab-small-a"), ('""', "a"), ("__lab-name", "small-a")],
)
def test_prefix_names_the_namespace(tmp_path: Path, prefix: str, expected: str) -> None:
    """The prefix of the file is the prefix of the namespaces."""
    assert expected == read(tmp_path, f"prefix: {prefix}\n{SMALL}").netns("a")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: small", "nam: small", "unknown key nam"),
        ("name: small", "name: small\ntopologie: 1", "unknown key topologie"),
        ("a: {image: alpine}", "a: {image: alpine, bind: [x]}", "topology.nodes.a: unknown key bind"),
        ("defaults: {kind: linux}", "defaults: {kind: linux, sysctl: 1}", "topology.defaults: unknown key sysctl"),
        ('"b:eth1"]', '"b:eth1"]\n      mut: 9000', "topology.links[0]: unknown key mut"),
        ("defaults: {kind: linux}", "", "topology.nodes.a.kind: must be linux to run without Docker, is None"),
        ("a: {image: alpine}", "a: {}", "topology.nodes.a: needs an image"),
        ("a: {image: alpine}", "a/b: {image: alpine}", "topology.nodes.a/b: a name has 1 to 63 letters"),
        (
            "a: {image: alpine}",
            "a: {image: 5}",
            "topology.nodes.a: image: Expected `str | null`, got `int`".replace("`", ""),
        ),
        ("a: {image: alpine}", "a: {image: x, network-mode: host}", "topology.nodes.a.network-mode: cannot be"),
        ("a: {image: alpine}", "a: {image: x, exec: ['echo \"']}", "topology.nodes.a.exec: cannot be split"),
        (
            "a: {image: alpine}",
            "a: {image: x, binds: ['nowhere:/x']}",
            "topology.nodes.a.binds: bind source does not exist",
        ),
        ("a: {image: alpine}", "a: {image: x, binds: ['.:x']}", "topology.nodes.a.binds: must be SOURCE:/TARGET"),
        ('"b:eth1"]', '"c:eth1"]', "topology.links[0].endpoints: no node named 'c'"),
        ('"b:eth1"]', '"b"]', "topology.links[0].endpoints: interface names have 1 to 15"),
        ('"b:eth1"]', '"b:interface-too-long"]', "topology.links[0].endpoints: interface names have 1 to 15"),
        ('"b:eth1"]', '"host:veth0"]', "topology.links[0].endpoints: cannot link to host without Docker"),
        ('"b:eth1"]', '"a:eth1"]', "topology.links[0]: a:eth1 is linked twice"),
        (', "b:eth1"]', "]", "topology.links[0].endpoints: a link has two endpoints, not 1"),
        ("name: small", "name: [", "is not YAML"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    """What breaks a rule is refused with file, path and rule."""
    assert refusal(tmp_path, SMALL.replace(old, new)).startswith(expected)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that is not there is refused by its name."""
    with pytest.raises(TopologyError, match=r"none\.clab\.yml: cannot be read"):
        load(tmp_path / "none.clab.yml", {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${SET}", "value"),
        ("$SET", "value"),
        ("${SET:=d}", "value"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${UNSET:=a/b:1.0}", "a/b:1.0"),
        ("${UNSET-d}", "d"),
        ("${UNSET}", "${UNSET}"),
        ("$UNSET $(x) $1", "$UNSET $(x) $1"),
    ],
)
def test_environment_is_expanded(text: str, expected: str) -> None:
    """Variables are put in by containerlab's rules; what is unset and has no default stays for the node's shell."""
    assert expected == expand(text, {"SET": "value", "EMPTY": ""})


def test_levels_merge_towards_the_node(tmp_path: Path) -> None:
    """Maps and lists of defaults, kind, group and node merge; where two say the same key, the nearest to the node wins."""
    for name in ("one", "two"):
        (tmp_path / name).touch()
    node = read(
        tmp_path,
        """
name: levels
topology:
  defaults: {kind: linux, image: d, env: {A: d, B: d}, exec: [echo d], binds: ["one:/etc/x"]}
  kinds: {linux: {env: {B: k, C: true}, sysctls: {net.ipv4.ip_forward: 1}}}
  groups: {g: {image: g, env: {D: g}, binds: ["two:/etc/x:ro"], labels: {l: 1}}}
  nodes:
    n: {group: g, env: {D: n}, exec: ["echo __clabNodeName__"], entrypoint: /bin/e, cmd: "-c 'x y'", startup-delay: 2}
""",
    ).node("n")

    assert "g" == node.image
    assert {"A": "d", "B": "k", "C": "true", "D": "n"} == dict(node.env)
    assert (("echo", "d"), ("echo", "n")) == node.exec
    assert (Bind(str(tmp_path / "two"), "/etc/x", read_only=True),) == node.binds
    assert (("net.ipv4.ip_forward", "1"),) == node.sysctls
    assert "1" == node.label("l")
    assert ("/bin/e", "-c", "x y") == node.command
    assert 2 == node.startup_delay_s


@pytest.mark.parametrize(("env", "image"), [({}, "frr"), ({"TOR_IMAGE": "bird"}, "bird")])
def test_two_tor_is_read(env: dict[str, str], image: str) -> None:
    """The lab of the README: two routers of the chosen make, three nodes with an uplink to each, three workloads."""
    lab = load(TWO_TOR, env)

    assert [image, image] == [node.image_name for node in lab.nodes if node.group == "tor"]
    for number in (1, 2, 3):
        ends = dict(lab.links_of(f"node{number}"))
        assert {"tor1", "tor2", f"w{number}"} == {end.node for end in ends.values()}
        assert f"node{number}" == lab.node(f"w{number}").label("bgpd.io/workload-of")
