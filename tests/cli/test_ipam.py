"""``bgpd ipam`` on an SQLite store, with no daemon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Delete, Put, Store
from bgpd.adapters.store.ipam.assign import assign_address
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.open import open_store
from bgpd.adapters.store.transact import ensure_pool
from bgpd.cli.main import cli
from bgpd.model.pool import Pool
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.adapter

Run = Callable[..., Result]
POOL = Pool(name="main", cidr=Prefix.parse("10.65.0.0/24"))
NODE = b'{"kind":"Node","metadata":{"name":"n"},"spec":{}}'


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/store.db"


@pytest.fixture
def bgpd(url: str, tmp_path: Path) -> Run:
    """Run ``bgpd ipam ARGUMENTS`` in this process, on a store of its own."""

    def run(*arguments: str) -> Result:
        environment = {
            "BGPD_STORE": url,
            "BGPD_CONFIG": str(tmp_path / "bgpd.toml"),
            "BGPD_SOCKET": str(tmp_path / "s"),
        }
        return CliRunner().invoke(cli, ["ipam", *arguments], prog_name="bgpd", env=environment)

    return run


def at(url: str, work: Callable[[Store], Awaitable[Any]]) -> Any:
    """Do something on the store."""

    async def main() -> Any:
        store = open_store(url)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


@pytest.fixture
def address(url: str) -> Address:
    """A pool, a block of node n, and an address of it."""

    async def work(store: Store) -> Address:
        await ensure_pool(store, POOL)
        await claim_block(store, POOL, "n")
        await store.txn((), (Put(keys.node_key("n"), NODE),))
        found = await assign_address(store, "n", "h", {"pod": "web", "namespace": "shop"})
        assert isinstance(found, Address)
        return found

    return at(url, work)


def good(result: Result) -> str:
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def lines(text: str) -> list[list[str]]:
    """Cells of each line of a table."""
    return [[cell.strip() for cell in line.split("  ") if cell] for line in text.splitlines()]


def test_show_has_calicoctls_columns(bgpd: Run, address: Address) -> None:
    """Pools are shown with numbers and shares, blocks under them where asked for; JSON has the exact numbers."""
    block = Prefix.of(address, 26)
    titles = ["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE"]
    pool = ["IP Pool", "10.65.0.0/24", "256", "1 (0%)", "0 (0%)", "255 (99%)"]
    own = ["Block", str(block), "64", "1 (1%)", "0 (0%)", "63 (98%)"]

    assert [titles, pool] == lines(good(bgpd("show")))
    assert [titles, pool, own] == lines(good(bgpd("show", "--show-blocks")))
    (shown,) = json.loads(good(bgpd("show", "-o", "json")))
    assert ("main", "10.65.0.0/24", 255, 1) == (
        shown["name"],
        shown["cidr"],
        shown["usage"]["free"],
        len(shown["blocks"]),
    )
    assert ("host:n", "confirmed") == (shown["blocks"][0]["owner"], shown["blocks"][0]["affinity"])


def test_nothing_to_show_is_said(bgpd: Run, url: str) -> None:
    """An empty answer is said on stderr and is no failure; as JSON it is an empty list."""
    at(url, lambda store: store.get("/"))

    assert ("", "there is no pool\n", 0) == parts(bgpd("show"))
    assert ("", "no address is borrowed\n", 0) == parts(bgpd("show", "--show-borrowed"))
    assert "[]\n" == good(bgpd("show", "-o", "json"))


def parts(result: Result) -> tuple[str, str, int]:
    return result.stdout, result.stderr, result.exit_code


def test_show_borrowed_names_borrower_and_owner(bgpd: Run, url: str, address: Address) -> None:
    """A borrowed address has a row: who uses it, whose block it is, for what."""
    key = keys.block_key(Prefix.of(address, 26))

    async def lend(store: Store) -> None:
        item = await store.get(key)
        assert item is not None
        await store.txn((), (Put(key, item.value.replace(b'"node":"n"', b'"node":"other"')),))

    at(url, lend)
    table = lines(good(bgpd("show", "--show-borrowed")))
    (row,) = json.loads(good(bgpd("show", "--show-borrowed", "-o", "json")))

    assert ["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"] == table[0]
    assert [str(address), "other", str(Prefix.of(address, 26)), "n", "pod", "shop/web"] == table[1]
    assert table[1] == [str(value) for value in row.values()]


def test_show_ip_says_who_has_it(bgpd: Run, address: Address) -> None:
    """One address is shown with its state, block, holder and attributes; an address of no pool as such."""
    shown = json.loads(good(bgpd("show", "--ip", str(address), "-o", "json")))
    text = good(bgpd("show", "--ip", str(address)))

    assert ("in use", "h", "n", "main") == (shown["state"], shown["handle"], shown["block_owner"], shown["pool"])
    assert {"node": "n", "pod": "web", "namespace": "shop"} == shown["attributes"]
    assert f"{address} is in use" in text
    assert "web" in text
    states = {
        str(Address(address + 1)): "free",
        str(Address(POOL.cidr.network + (address - POOL.cidr.network + 64) % 256)): "unclaimed",
        "192.0.2.1": "outside",
    }
    assert states == {ip: json.loads(good(bgpd("show", "--ip", ip, "-o", "json")))["state"] for ip in states}


def test_show_ip_knows_reserved_addresses(bgpd: Run, url: str, address: Address) -> None:
    """A reserved address is shown as reserved, and pools count it."""
    reserved = Address(address + 1)
    value = json.dumps({"spec": {"reservedCIDRs": [str(reserved)]}}).encode()
    at(url, lambda store: store.txn((), (Put(keys.RESOURCES + "ipreservations/r", value),)))

    assert "reserved" == json.loads(good(bgpd("show", "--ip", str(reserved), "-o", "json")))["state"]
    assert "1 (0%)" == lines(good(bgpd("show")))[1][4]


def test_show_configuration_has_the_defaults(bgpd: Run, url: str) -> None:
    """The settings of IPAM are shown also where none is stored."""
    at(url, lambda store: store.get("/"))

    assert [
        ["PROPERTY", "VALUE"],
        ["AutoAllocateBlocks", "true"],
        ["IpCooldownSeconds", "0"],
        ["KubeVirtVMAddressPersistence", "-"],
        ["MaxBlocksPerHost", "0"],
        ["StrictAffinity", "false"],
    ] == lines(good(bgpd("show", "--show-configuration")))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "--ip", "nonsense"], "--ip: 'nonsense' does not appear to be an IPv4 or IPv6 address"),
        (
            ["show", "--show-blocks", "--show-borrowed"],
            "--show-blocks, --show-borrowed, --show-configuration and --ip are one at a time",
        ),
    ],
)
def test_bad_input_is_told(bgpd: Run, arguments: list[str], sentence: str) -> None:
    """Wrong arguments end with status 2 and what is wrong."""
    assert ("", f"bgpd: {sentence}\n", 2) == parts(bgpd(*arguments))


def test_a_lost_store_is_status_3(bgpd: Run) -> None:
    """Without a store the commands end with status 3."""
    for command in ("show", "check"):
        result = bgpd(command, "--store", "etcd://127.0.0.1:1")
        assert (3, "") == (result.exit_code, result.stdout)
        assert result.stderr.startswith("bgpd: the store cannot be reached: ")


def test_a_clean_store_passes(bgpd: Run, address: Address) -> None:
    """A store in which all fits is checked with status 0, whatever the form."""
    text = good(bgpd("check"))
    report = json.loads(good(bgpd("check", "-o", "json")))

    assert text.endswith("Check complete; found 0 problems.\n")
    assert ([], 1, 1, 0) == (
        report["problems"],
        report["counts"]["allocations"],
        report["counts"]["not-judged"],
        report["counts"]["problems"],
    )


def test_problems_are_status_1_and_reported(bgpd: Run, url: str, address: Address, tmp_path: Path) -> None:
    """Problems end the check with status 1; they are listed, and the report names what may be released, with its sequence number."""
    at(url, lambda store: store.txn((), (Delete(keys.node_key("n")), Put(keys.handle_key("lost"), b'{"block":{}}'))))
    file = tmp_path / "report.json"
    result = bgpd("check", "--show-problem-ips", "--output-report", str(file))
    report = json.loads(file.read_bytes())

    assert (1, "") == (result.exit_code, result.stderr)
    table = [row for row in lines(result.stdout) if row[0] in {"allocated-unused", "handle-without-addresses"}]
    assert [str(address), "h", "there is no node n"] == table[0][1:]
    assert ["lost", "-", "no block has an address of it"] == table[1][1:]
    (found,) = report["allocations"][str(address)]
    assert ("h", False) == (found["handle"], found["inUse"])
    assert found["sequenceNumber"] > 0
    assert ["lost"] == [one["id"] for one in report["leakedHandles"]]
    assert report["problems"] == json.loads(bgpd("check", "-o", "json").stdout)["problems"]


def test_all_addresses_are_listed_on_request(bgpd: Run, address: Address) -> None:
    """``--show-all-ips`` lists every allocation with the judgement and its reason."""
    rows = lines(good(bgpd("check", "--show-all-ips")))

    assert [str(address), "n", "shop/web", "not-judged", "node n does not say which addresses it uses"] in rows


def test_a_report_that_cannot_be_written_is_a_failure(bgpd: Run, address: Address, tmp_path: Path) -> None:
    """A report that cannot be written ends the check with status 1 and the reason."""
    result = bgpd("check", "--output-report", str(tmp_path / "none" / "report.json"))

    assert (1, "") == (result.exit_code, result.stdout)
    assert result.stderr.endswith("No such file or directory\n")


# ------------------------------------------------------------------ release


def state(bgpd: Run, address: Address) -> str:
    return str(json.loads(good(bgpd("show", "--ip", str(address), "-o", "json")))["state"])


def sequence_of(bgpd: Run, address: Address) -> int:
    return int(json.loads(good(bgpd("show", "--ip", str(address), "-o", "json")))["sequence"])


def test_an_address_is_released_once(bgpd: Run, address: Address) -> None:
    """Releasing an address frees it and its handle; again, it is said that nobody has it."""
    assert f"{address}: released\n" == good(bgpd("release", "--ip", str(address)))
    assert "free" == state(bgpd, address)
    assert f"{address}: is not assigned\n" == good(bgpd("release", "--ip", str(address)))
    assert 0 == json.loads(good(bgpd("check", "-o", "json")))["counts"]["handles"]


def test_a_release_of_another_allocation_is_refused(bgpd: Run, address: Address) -> None:
    """An address that another handle has, or that was assigned anew, stays, with status 1 and the reason."""
    other = bgpd("release", "--ip", str(address), "--handle", "other")
    late = bgpd("release", "--ip", str(address), "--sequence", "7")

    for result, part in ((other, "is held by handle h"), (late, "was assigned anew meanwhile")):
        assert (1, "") == (result.exit_code, result.stdout)
        assert part in result.stderr
    assert "in use" == state(bgpd, address)
    sequence = str(sequence_of(bgpd, address))
    good(bgpd("release", "--ip", str(address), "--handle", "h", "--sequence", sequence))
    assert "free" == state(bgpd, address)


def test_a_handle_is_released_whole(bgpd: Run, address: Address) -> None:
    """All that a handle has is released; one that has nothing is said to."""
    shown = json.loads(good(bgpd("release", "--handle", "h", "-o", "json")))

    assert {"released": [str(address)], "unallocated": [], "handles": [], "kept": []} == shown
    assert ("", "bgpd: handle h has no address\n", 0) == parts(bgpd("release", "--handle", "h"))


def reported(bgpd: Run, file: Path) -> str:
    assert 1 == bgpd("check", "--output-report", str(file)).exit_code
    return str(file)


def test_reports_are_intersected_and_checked_again(bgpd: Run, url: str, address: Address, tmp_path: Path) -> None:
    """What all reports name goes, with leaked handles, and the store is clean after; what only one names stays."""
    at(url, lambda store: store.txn((), (Delete(keys.node_key("n")), Put(keys.handle_key("lost"), b'{"block":{}}'))))
    first = reported(bgpd, tmp_path / "1.json")
    second = at(url, lambda store: assign_address(store, "n", "later", {}))
    reported(bgpd, tmp_path / "2.json")
    both = ("release", "--from-report", first, "--from-report", str(tmp_path / "2.json"))

    assert f"{address}: would be released\nhandle lost: would be deleted\n" == good(bgpd(*both, "--dry-run"))
    assert f"{address}: released\nhandle lost: deleted\n" == good(bgpd(*both))
    assert ("free", "in use") == (state(bgpd, address), state(bgpd, second))
    assert f"{address}: is not assigned\n" == good(bgpd(*both))


def test_a_report_frees_nothing_that_was_used_again(bgpd: Run, url: str, address: Address, tmp_path: Path) -> None:
    """An address that was assigned anew, came into use, or whose handle has one in use stays, and it is said why."""

    def other(store: Store, block: bytes) -> Awaitable[Any]:
        return store.txn((), (Put(keys.block_key(Prefix.of(address, 26)), block),))

    at(url, lambda store: store.txn((), (Delete(keys.node_key("n")),)))
    file = reported(bgpd, tmp_path / "r.json")
    at(url, lambda store: store.txn((), (Put(keys.node_key("n"), NODE),)))
    back = bgpd("release", "--from-report", file)
    assert (1, True) == (back.exit_code, "not known to be unused" in back.stderr)

    at(url, lambda store: store.txn((), (Delete(keys.node_key("n")),)))
    item = at(url, lambda store: store.get(keys.block_key(Prefix.of(address, 26))))
    sequence = str(sequence_of(bgpd, address)).encode()
    at(url, lambda store: other(store, item.value.replace(b'":' + sequence + b"}", b'":' + sequence + b"9}")))
    late = bgpd("release", "--from-report", file)
    assert (1, True) == (late.exit_code, "assigned anew since the report" in late.stderr)
    assert "in use" == state(bgpd, address)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "say what to release: --ip ADDRESS, --handle HANDLE or --from-report FILE"),
        (["--ip", "x"], "--ip: 'x' does not appear to be an IPv4 or IPv6 address"),
        (["--handle", "h", "--sequence", "1"], "--sequence needs one --ip: it is the number of one allocation"),
        (["--handle", "h", "--dry-run"], "--dry-run goes with --from-report"),
    ],
)
def test_bad_releases_are_told(bgpd: Run, arguments: list[str], sentence: str) -> None:
    """A release that says too little, or too much, ends with status 2."""
    assert ("", f"bgpd: {sentence}\n", 2) == parts(bgpd("release", *arguments))


@pytest.mark.usefixtures("address")
def test_a_file_that_is_no_report_is_told(bgpd: Run, tmp_path: Path) -> None:
    """A file that is no report, or a report of another cluster, ends with status 2 and writes nothing."""
    file = tmp_path / "x"
    file.write_text("{}")
    assert 2 == bgpd("release", "--from-report", str(file)).exit_code
    file.write_text('{"version": "1", "clusterGUID": "other"}')
    result = bgpd("release", "--from-report", str(file))
    assert ("", 2) == (result.stdout, result.exit_code)
    assert "a report is about cluster other" in result.stderr


# ------------------------------------------------------------------ settings, split


def test_settings_are_changed_by_their_rules(bgpd: Run) -> None:
    """Settings change alone or together, keep the others, and what contradicts is refused with status 2, nothing written."""
    tried = bgpd("configure", "--cooldown", "60", "--dry-run")
    assert ("IPAMConfiguration default: would be created\n", 0) == (tried.stdout, tried.exit_code)
    assert "does not exist" in tried.stderr  # the store: what is said is said of an empty one
    assert "IPAMConfiguration default: created\n" == good(bgpd("configure", "--cooldown", "60"))
    assert "IPAMConfiguration default: unchanged\n" == good(bgpd("configure", "--cooldown", "60"))
    refused = bgpd("configure", "--max-blocks-per-host", "5")
    assert ("", 2) == (refused.stdout, refused.exit_code)
    assert "needs strictAffinity" in refused.stderr
    good(bgpd("configure", "--strictaffinity", "true", "--max-blocks-per-host", "5"))
    loose = bgpd(
        "configure", "--strict-affinity", "false", "--auto-allocate-blocks", "false", "--max-blocks-per-host", "0"
    )
    assert 2 == loose.exit_code

    shown = json.loads(good(bgpd("show", "--show-configuration", "-o", "json")))
    assert {
        "AutoAllocateBlocks": "true",
        "IpCooldownSeconds": "60",
        "KubeVirtVMAddressPersistence": "",
        "MaxBlocksPerHost": "5",
        "StrictAffinity": "true",
    } == {one["property"]: one["value"] for one in shown}
    assert 2 == bgpd("configure").exit_code
    assert 2 == bgpd("configure", "--cooldown", "1201").exit_code


def test_a_split_keeps_every_address(bgpd: Run, url: str, address: Address) -> None:
    """After a split the parts hold what the pool held, the pool is gone, nothing is wrong, and assignment goes on."""
    assert "IPPool main: would be deleted" in good(bgpd("split", "main", "2", "--dry-run"))
    good(bgpd("split", "main", "2"))
    pools = json.loads(good(bgpd("show", "-o", "json")))

    assert [("split-main-0", "10.65.0.0/25"), ("split-main-1", "10.65.0.128/25")] == [
        (pool["name"], pool["cidr"]) for pool in pools
    ]
    assert 1 == sum(pool["usage"]["in_use"] for pool in pools)
    assert "in use" == state(bgpd, address)
    assert at(url, lambda store: assign_address(store, "n", "next", {}))
    good(bgpd("check"))


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["none", "2"], 1, "IPPool none does not exist"),
        (["main", "3"], 2, "is split into 2, 4, 8"),
        (["main", "8"], 2, "has 4 blocks of /26, fewer than 8"),
    ],
)
def test_a_split_that_cannot_be_is_told(
    bgpd: Run, address: Address, arguments: list[str], code: int, part: str
) -> None:
    """A split of no pool, into a wrong number of parts, or into less than blocks is refused, nothing written."""
    result = bgpd("split", *arguments)

    assert (code, "") == (result.exit_code, result.stdout)
    assert part in result.stderr
    assert ["main"] == [pool["name"] for pool in json.loads(good(bgpd("show", "-o", "json")))]
