"""The commands that manage resources, on an SQLite store, with no daemon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from bgpd.adapters.store.base import Put, Store
from bgpd.adapters.store.keys import RESOURCES, block_key
from bgpd.adapters.store.open import open_store
from bgpd.adapters.store.resources import key_of, list_resources
from bgpd.adapters.store.sqlite import SqliteStore
from bgpd.adapters.store.watch import StoreSource
from bgpd.cli import manifest
from bgpd.cli.main import cli
from bgpd.core.resource import kinds
from bgpd.model.event import Event, PoolChanged, StoreSynced
from bgpd.model.notice import Notice
from bgpd.model.pool import Mode, Pool
from bgpd.model.prefix import Prefix
from tests.core.resource.examples import EVERY_FIELD

pytestmark = pytest.mark.adapter

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "config" / "resources"
Run = Callable[..., Result]

POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: main
  labels: {tier: 1.10, spare: yes}
  annotations: {bgpd.io/fallback: None}
spec:
  cidr: 10.65.0.0/24
  vxlanMode: CrossSubnet
"""
NODE = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: NAME}\nspec: {}\n"

NODE_NAME_RULE = "must be of letters, digits, '-', '.' and '_', and begin and end with a letter or digit"
KNOWN = ", ".join(kind.kind for kind in kinds.KINDS)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a store that exists and holds nothing."""

    async def make() -> None:
        store = SqliteStore(tmp_path / "store.db")
        await store.get("/")
        await store.close()

    asyncio.run(make())
    return f"sqlite://{tmp_path}/store.db"


@pytest.fixture
def bgpd(url: str, tmp_path: Path) -> Run:
    """Run ``bgpd ARGUMENTS`` in this process, on a store of its own."""

    def run(*arguments: str, stdin: str = "") -> Result:
        environment = {"BGPD_STORE": url, "BGPD_CONFIG": str(tmp_path / "bgpd.toml")}
        return CliRunner().invoke(cli, arguments, prog_name="bgpd", env=environment, input=stdin)

    return run


def good(result: Result) -> str:
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def bad(result: Result) -> tuple[int, str]:
    assert result.stdout == ""
    return result.exit_code, result.stderr


def test_apply_creates_then_replaces_then_leaves_alone(bgpd: Run) -> None:
    """Apply says of each resource whether it was created, replaced or is unchanged."""
    assert good(bgpd("apply", "-f", "-", stdin=POOL)) == "IPPool main: created\n"
    assert good(bgpd("apply", "-f", "-", stdin=POOL)) == "IPPool main: unchanged\n"
    assert good(bgpd("apply", "-f", "-", stdin=POOL + "  natOutgoing: true\n")) == "IPPool main: replaced\n"


def test_tables_have_calicoctls_columns(bgpd: Run) -> None:
    """Tables show a resource a row, the wide one with more columns; absent fields show what they mean."""
    good(bgpd("apply", "-f", "-", stdin=POOL))

    assert good(bgpd("get", "ippools")) == "NAME  CIDR          SELECTOR\nmain  10.65.0.0/24  all()\n"
    wide = [line.split() for line in good(bgpd("get", "IPP", "-o", "wide")).splitlines()]
    titles = "NAME CIDR NAT IPIPMODE VXLANMODE DISABLED DISABLEBGPEXPORT SELECTOR ASSIGNMENTMODE BLOCKSIZE ALLOWEDUSES"
    cells = "main 10.65.0.0/24 false Never CrossSubnet false false all() Automatic 26 Workload,Tunnel"
    assert wide == [titles.split(), cells.split()]
    assert good(bgpd("get", "pool", "-o", "name")) == "ippool/main\n"


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.kind)
def test_every_kind_has_its_tables(bgpd: Run, kind: kinds.Kind) -> None:
    """Each kind is shown under each of its names, narrow and wide."""
    good(bgpd("apply", "-f", "-", stdin=manifest.dump(EVERY_FIELD.values())))
    name = EVERY_FIELD[kind.kind]["metadata"]["name"]
    shown = {word: good(bgpd("get", word)) for word in (kind.kind, kind.plural, kind.plural.upper(), *kind.short)}

    assert len(set(shown.values())) == 1
    assert [line.split()[0] for line in shown[kind.kind].splitlines()] == ["NAME", name]
    assert [line.split()[0] for line in good(bgpd("get", kind.kind, name, "-o", "wide")).splitlines()] == ["NAME", name]


def test_yaml_and_json_are_whole_resources(bgpd: Run) -> None:
    """One named resource is a document, several are a list document; labels are text as they were written."""
    good(bgpd("apply", "-f", "-", stdin=POOL))
    one = yaml.safe_load(good(bgpd("get", "ippool", "main", "-o", "yaml")))
    listed = json.loads(good(bgpd("get", "ippool", "-o", "json")))

    assert one["metadata"]["labels"] == {"tier": "1.10", "spare": "yes"}
    assert one["metadata"]["resourceVersion"].isdecimal()
    assert (listed["kind"], listed["items"]) == ("IPPoolList", [one])


def test_shown_is_taken_back_until_somebody_else_writes(bgpd: Run, tmp_path: Path) -> None:
    """What `get -o yaml` shows can be edited and applied, once; after another change it is a conflict."""
    good(bgpd("apply", "-f", "-", stdin=POOL))
    shown = good(bgpd("get", "ippool", "-o", "yaml"))
    file = tmp_path / "edit.yaml"
    file.write_text(shown.replace("blockSize: 26", "blockSize: 26\n    disabled: true"))

    assert good(bgpd("apply", "-f", str(file))) == "IPPool main: replaced\n"
    code, message = bad(bgpd("apply", "-f", str(file)))

    assert code == 1
    assert message.startswith(f"bgpd: {file}, document 1, item 1 (IPPool main): has resourceVersion ")
    assert "was changed meanwhile" in message


def test_missing_name_is_told_beside_what_there_is(bgpd: Run) -> None:
    """A name that does not exist ends with status 1, and the others are shown all the same."""
    good(bgpd("apply", "-f", "-", stdin=POOL))

    result = bgpd("get", "ippool", "main", "lost", "-o", "name")

    assert (result.exit_code, result.stdout, result.stderr) == (
        1,
        "ippool/main\n",
        "bgpd: IPPool lost does not exist\n",
    )


def test_one_bad_document_applies_nothing(bgpd: Run, tmp_path: Path) -> None:
    """Every defect of every document is named, with status 2, and nothing is written."""
    file = tmp_path / "all.yaml"
    file.write_text(POOL + "---\n" + NODE.replace("NAME", "-n") + "---\nkind: Gateway\n---\nmetadata: [\n")

    code, message = bad(bgpd("apply", "-f", str(file)))

    assert code == 2
    assert message.splitlines() == [
        "bgpd: 3 defects, nothing was written:",
        f"  {file}, document 4: is not YAML: line 19, column 1: did not find expected node content",
        f'  {file}, document 2 (Node -n): metadata.name: "-n": {NODE_NAME_RULE}',
        f'  {file}, document 3: kind: "Gateway": is not managed here: one of {KNOWN}',
    ]
    assert good_but_empty(bgpd("get", "ippools"))


def good_but_empty(result: Result) -> bool:
    return (result.exit_code, result.stdout, result.stderr) == (0, "", "there is no IPPool\n")


def test_misspelt_field_is_told(bgpd: Run) -> None:
    """A field that nobody knows is kept, and told on stderr with the name that it resembles."""
    result = bgpd("apply", "-f", "-", stdin=POOL + "  natOutgoin: true\n")

    assert (result.exit_code, result.stdout) == (0, "IPPool main: created\n")
    assert result.stderr == (
        "bgpd: stdin, document 1 (IPPool main): spec.natOutgoin is not known here and is kept as it is; "
        "did you mean natOutgoing?\n"
    )
    assert "natOutgoin: true" in good(bgpd("get", "ippool", "main", "-o", "yaml"))


def test_dry_run_writes_nothing(bgpd: Run) -> None:
    """--dry-run says what would be done, finds what would fail, and writes nothing."""
    assert good(bgpd("apply", "--dry-run", "-f", "-", stdin=POOL)) == "IPPool main: would be created\n"
    assert good(bgpd("create", "--dry-run", "-f", "-", stdin=POOL)) == "IPPool main: would be created\n"
    assert bad(bgpd("replace", "--dry-run", "-f", "-", stdin=POOL))[0] == 1
    assert good_but_empty(bgpd("get", "ippools"))


def test_create_and_replace(bgpd: Run) -> None:
    """Create wants none to exist unless told to skip those, replace wants all to exist."""
    both = POOL + "---\n" + NODE.replace("NAME", "a")
    code, message = bad(bgpd("replace", "-f", "-", stdin=both))
    assert (code, message.splitlines()) == (
        1,
        [
            "bgpd: 2 conflicts, nothing was written:",
            "  stdin, document 1 (IPPool main): does not exist",
            "  stdin, document 2 (Node a): does not exist",
        ],
    )
    good(bgpd("create", "-f", "-", stdin=POOL))
    assert bad(bgpd("create", "-f", "-", stdin=both))[0] == 1
    assert good(bgpd("create", "--skip-exists", "-f", "-", stdin=both)) == "Node a: created\n"
    assert good(bgpd("replace", "-f", "-", stdin=both)) == "IPPool main: unchanged\nNode a: unchanged\n"


def test_delete_by_name_and_by_file(bgpd: Run) -> None:
    """Resources are deleted by kind and name, or by the files that name them, all of them or none."""
    both = POOL + "---\n" + NODE.replace("NAME", "a")
    good(bgpd("apply", "-f", "-", stdin=both))

    assert good(bgpd("delete", "node", "a", "--dry-run")) == "Node a: would be deleted\n"
    assert bad(bgpd("delete", "node", "a", "b")) == (1, "bgpd: Node b: does not exist\n")
    assert good(bgpd("delete", "no", "a", "b", "--skip-not-exists")) == "Node a: deleted\n"
    assert bad(bgpd("delete", "-f", "-", stdin=both))[0] == 1
    assert good(bgpd("delete", "-f", "-", stdin="kind: IPPool\nmetadata: {name: main}\n")) == "IPPool main: deleted\n"


def test_label_sets_and_removes(bgpd: Run) -> None:
    """Labels are set and removed; another value needs --overwrite."""
    good(bgpd("apply", "-f", "-", stdin=NODE.replace("NAME", "a")))

    assert good(bgpd("label", "nodes", "a", "rack=1", "x/y=no=yes")) == "Node a: replaced\n"
    assert bad(bgpd("label", "node", "a", "rack=2")) == (1, "bgpd: label rack of Node a is '1': use --overwrite\n")
    good(bgpd("label", "node", "a", "rack=2", "x/y-", "gone-", "--overwrite"))
    assert json.loads(good(bgpd("get", "node", "a", "-o", "json")))["metadata"]["labels"] == {"rack": "2"}
    good(bgpd("label", "node", "a", "rack", "--remove"))
    assert "labels" not in json.loads(good(bgpd("get", "node", "a", "-o", "json")))["metadata"]
    assert bad(bgpd("label", "node", "a", "rack"))[0] == 2
    assert bad(bgpd("label", "node", "a", "a b=c"))[0] == 2
    assert bad(bgpd("label", "node", "b", "a=c")) == (1, "bgpd: Node b does not exist\n")


def test_export_is_read_by_import(bgpd: Run, tmp_path: Path) -> None:
    """An export of one store, imported into another, is the same resources with the same uids."""
    good(bgpd("apply", "-f", "-", stdin=manifest.dump(EVERY_FIELD.values())))
    exported = good(bgpd("export"))
    other = ("--store", f"sqlite://{tmp_path}/other.db")
    result = bgpd("import", "--dry-run", "-f", "-", *other, stdin=exported)
    tried = result.stdout.splitlines()

    assert f"bgpd: {tmp_path}/other.db does not exist; this is said of an empty store\n" == result.stderr
    assert [line.partition(": ")[2] for line in tried] == ["would be created"] * len(EVERY_FIELD)
    assert len(good(bgpd("import", "-f", "-", *other, stdin=exported)).splitlines()) == len(EVERY_FIELD)
    assert good(bgpd("export", *other)) == exported
    assert "resourceVersion" not in exported


def test_more_than_a_transaction_is_for_import(bgpd: Run, url: str) -> None:
    """Apply refuses what does not fit one transaction; import writes it in several."""
    many = "---\n".join(NODE.replace("NAME", f"n{index}") for index in range(300))

    code, message = bad(bgpd("apply", "-f", "-", stdin=many))
    assert code == 2
    assert message.startswith(
        "bgpd: 300 resources are more than one transaction of the store holds (122 keys beside the journal's)"
    )
    assert len(good(bgpd("import", "-f", "-", stdin=many)).splitlines()) == 300
    assert len(on(url, _nodes)) == 300


async def _nodes(store: Store) -> list[str]:
    return [item.name for item in (await list_resources(store, kinds.NODE)).items]


def on(url: str, work: Callable[[Store], object]) -> object:
    async def main() -> object:
        store = open_store(url)
        try:
            return await work(store)  # type: ignore[misc]
        finally:
            await store.close()

    return asyncio.run(main())


def test_plan_tells_fields_and_effects(bgpd: Run, url: str) -> None:
    """A plan shows each field that would differ and what nodes would do, and writes nothing."""
    block = Prefix.parse("10.65.0.64/26")
    value = {
        "cidr": str(block),
        "affinity": "host:a",
        "allocations": [None] * 64,
        "unallocated": list(range(64)),
        "attributes": [],
    }
    mesh = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: {nodeToNodeMeshEnabled: false}\n"
    peer = (
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: tor}\n"
        "spec: {nodeSelector: rack == '1', peerIP: 192.0.2.1, asNumber: 65001}\n"
    )
    node = NODE.replace("NAME", "a").replace("spec: {}", "spec: {bgp: {ipv4Address: 192.0.2.9/24}}")
    good(bgpd("apply", "-f", "-", stdin=f"{POOL}---\n{mesh}---\n{peer}---\n{node}"))
    good(bgpd("label", "node", "a", "rack=1"))
    on(url, lambda store: store.txn([], [Put(block_key(block), json.dumps(value).encode())]))
    changed = POOL + "  disableBGPExport: true\n---\n" + peer.replace("65001", "65002")

    assert good(bgpd("plan", "-f", "-", stdin=changed)).splitlines() == [
        "IPPool main: would be replaced",
        "  + spec.disableBGPExport: true",
        "BGPPeer tor: would be replaced",
        "  ~ spec.asNumber: 65001 -> 65002",
        "",
        "What nodes would do, as far as resources tell:",
        "  session of a with 192.0.2.1: would be reset (AS number of the peer)",
        "  10.65.0.64/26 of a: would be withdrawn",
    ]
    view = json.loads(good(bgpd("plan", "--delete", "-o", "json", "-f", "-", stdin=POOL)))
    assert view["changes"][0]["action"] == "deleted"
    assert view["effects"] == [
        "pool main: would be gone; 1 blocks of 1 nodes with 0 addresses in use would belong to no pool"
    ]
    assert good(bgpd("plan", "-f", "-", stdin=POOL)) == "IPPool main: unchanged\n"
    assert bad(bgpd("delete", "ippool", "main"))[0] == 1
    assert good(bgpd("delete", "ippool", "main", "--force")) == "IPPool main: deleted\n"


JUNK = ["x", 7, [1], {"a": 1}, True]


@pytest.mark.parametrize("junk", JUNK, ids=str)
def test_what_others_stored_wrongly_breaks_nothing(bgpd: Run, url: str, junk: object) -> None:
    """Values of the wrong kind in stored resources are shown as they are; plans and changes of others go on."""

    async def work(store: Store) -> None:
        for kind in kinds.KINDS:
            if not kind.view:
                value = {"metadata": {"name": "bad"}, "spec": dict.fromkeys(kind.spec.shapes, junk)}
                await store.txn([], [Put(key_of(kind, "bad"), json.dumps(value).encode())])

    on(url, work)
    peer = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: p}\nspec: {peerSelector: all()}\n"

    for kind in kinds.KINDS:
        for form in ("wide", "yaml"):
            assert bgpd("get", kind.kind, "-o", form).exit_code == 0
    planned = bgpd("plan", "-f", "-", stdin=POOL + "---\n" + peer)
    assert planned.exit_code == 0
    assert "BGPPeer bad is stored, but breaks rules: it is not reckoned with\n" in planned.stderr
    assert bgpd("apply", "-f", "-", stdin=POOL + "---\n" + peer).exit_code == 0
    assert good(bgpd("delete", "filter", "bad")) == "BGPFilter bad: deleted\n"


def test_export_says_what_it_leaves_out(bgpd: Run, url: str) -> None:
    """Resources of other kinds are counted on stderr, and a value that cannot be read ends with status 1."""
    on(url, lambda store: store.txn([], [Put(RESOURCES + "networkpolicies/a/b", b"{}")]))
    good(bgpd("apply", "-f", "-", stdin=POOL))

    result = bgpd("export")
    on(url, lambda store: store.txn([], [Put(RESOURCES + "nodes/n", b"{")]))
    broken = bgpd("export")

    assert (result.exit_code, result.stderr) == (
        0,
        "bgpd: 1 resources of kinds that bgpd does not manage were left out\n",
    )
    assert (broken.exit_code, broken.stdout) == (1, result.stdout)
    assert (
        "a stored value cannot be used and was left out: /calico/resources/v3/projectcalico.org/nodes/n"
        in broken.stderr
    )


def test_peers_far_ends_are_shown(bgpd: Run) -> None:
    """The peers' table shows what each has a session with, and on which nodes."""
    peers = "---\n".join(
        f"apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        for name, spec in (
            ("a", "peerIP: 192.0.2.1, asNumber: 1.10, node: n"),
            ("b", "localWorkloadSelector: has(x), asNumber: 65001"),
        )
    )
    good(bgpd("apply", "-f", "-", stdin=peers))

    assert [line.split() for line in good(bgpd("get", "bgpp")).splitlines()] == [
        ["NAME", "PEERIP", "NODE", "ASN"],
        ["a", "192.0.2.1", "n", "1.10"],
        ["b", "workloads", "has(x)", "all()", "65001"],
    ]


def test_daemon_reads_the_pool_that_apply_wrote(bgpd: Run, url: str) -> None:
    """What `bgpd apply` writes is the pool that the daemon's source of events tells."""
    v6 = POOL.replace("10.65.0.0/24", "fd00::/64").replace("name: main", "name: six").replace("CrossSubnet", "Never")
    v6 = v6.replace("  annotations: {bgpd.io/fallback: None}\n", "")
    extra = "  blockSize: 28\n  disabled: null\n  disableBGPExport: yes\n  assignmentMode: Manual\n"
    good(bgpd("apply", "-f", "-", stdin=POOL + extra + "---\n" + v6))
    events: list[Event] = []
    notices: list[Notice] = []
    synced = asyncio.Event()

    async def deliver(event: Event) -> None:
        events.append(event)
        if isinstance(event, StoreSynced):
            synced.set()

    async def work(store: Store) -> None:
        source = asyncio.create_task(StoreSource(store, deliver, notices.append).run())
        async with asyncio.timeout(20):
            await synced.wait()
        source.cancel()
        await asyncio.gather(source, return_exceptions=True)

    on(url, work)

    assert notices == []
    assert events == [
        PoolChanged(
            Pool(
                name="main",
                cidr=Prefix.parse("10.65.0.0/24"),
                block_size=28,
                vxlan_mode=Mode.CROSS_SUBNET,
                automatic=False,
                disable_bgp_export=True,
                fallback=(),
            )
        ),
        PoolChanged(Pool(name="six", cidr=Prefix.parse("fd00::/64"), block_size=122)),
        StoreSynced(),
    ]


def test_store_that_cannot_be_reached(bgpd: Run, tmp_path: Path) -> None:
    """A store that cannot be reached ends with status 3, a URL that is none with status 2."""
    (tmp_path / "file").touch()
    code, message = bad(bgpd("get", "ippools", "--store", f"sqlite://{tmp_path}/file/store.db"))

    assert (code, message.startswith("bgpd: the store cannot be reached: ")) == (3, True)
    assert bad(bgpd("get", "ippools", "--store", "http://x"))[0] == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("get", "ippools"), 3),
        (("export",), 3),
        (("ipam", "show"), 3),
        (("ipam", "check"), 3),
        (("delete", "ippool", "main"), 3),
        (("label", "ippool", "main", "a=b"), 3),
        (("replace", "-f", str(EXAMPLES)), 3),
        (("plan", "-f", str(EXAMPLES)), 0),
        (("apply", "--dry-run", "-f", str(EXAMPLES)), 0),
    ],
)
def test_a_mistyped_path_makes_no_store(bgpd: Run, tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    """A command that puts nothing into the store makes no file: it says that there is none, or what one would be told of an
    empty one."""
    result = bgpd(*arguments, "--store", f"sqlite://{tmp_path}/sotre.db")

    assert (code, True) == (result.exit_code, f"{tmp_path}/sotre.db does not exist" in result.stderr)
    assert not (tmp_path / "sotre.db").exists()
    good(bgpd("apply", "-f", str(EXAMPLES), "--store", f"sqlite://{tmp_path}/new.db"))
    assert (tmp_path / "new.db").exists()


def test_store_of_the_configuration(bgpd: Run, url: str, tmp_path: Path) -> None:
    """Without --store and BGPD_STORE, the store is the one that the configuration file names."""
    good(bgpd("apply", "-f", "-", stdin=POOL))
    file = tmp_path / "bgpd.toml"
    file.write_text(f'[node]\nname = "a"\naddress = "192.0.2.1/32"\nasn = 65101\n[store]\nurl = "{url}"\n')

    result = CliRunner().invoke(cli, ["get", "ippools", "-o", "name"], env={"BGPD_STORE": "", "BGPD_CONFIG": str(file)})

    assert (result.exit_code, result.stdout) == (0, "ippool/main\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "gateways"),
        ("apply",),
        ("apply", "-f", "/nonexistent"),
        ("delete",),
        ("delete", "ippool"),
        ("delete", "ippool", "a", "-f", "-"),
        ("validate", "-f", "-"),
        ("export", "gateways"),
    ],
)
def test_bad_use_is_told(bgpd: Run, arguments: tuple[str, ...]) -> None:
    """What is asked for wrongly ends with status 2 and one sentence."""
    code, message = bad(bgpd(*arguments))

    assert (code, message.startswith("bgpd: ")) == (2, True)


def test_examples_are_right(bgpd: Run) -> None:
    """The example resources are right, know of all kinds, apply as they stand, and are unchanged then."""
    assert good(bgpd("validate", "-f", str(EXAMPLES))) == "12 resources are right\n"
    first = good(bgpd("apply", "-f", str(EXAMPLES))).splitlines()
    second = good(bgpd("apply", "-f", str(EXAMPLES))).splitlines()

    assert {line.split()[0] for line in first} == {kind.kind for kind in kinds.KINDS}
    assert {line.rpartition(" ")[2] for line in first} == {"created"}
    assert {line.rpartition(" ")[2] for line in second} == {"unchanged"}


def test_plan_of_the_cluster_says_what_each_node_would_do(bgpd: Run) -> None:
    """With --cluster each node has its sessions, in words and JSON; without it nothing is said of nodes where no file names this one."""
    nodes = "---\n".join(
        NODE.replace("NAME", name).replace("{}", f"{{bgp: {{ipv4Address: 10.0.0.{number}/32}}}}")
        for number, name in enumerate(("one", "two"), 1)
    )
    good(bgpd("apply", "-f", "-", stdin=nodes))
    mesh = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: {}\n"

    shown = good(bgpd("plan", "--cluster", "-f", "-", stdin=mesh))
    view = json.loads(good(bgpd("plan", "--cluster", "-f", "-", "-o", "json", stdin=mesh)))

    assert "\none:\n  session with mesh-two 10.0.0.2: would be added\n" in shown
    assert {"one", "two"} == {node["node"] for node in view["nodes"]}
    assert "would be added" not in good(bgpd("plan", "-f", "-", stdin=mesh)).split("What nodes would do", maxsplit=1)[0]
