"""``bgpd ipam check``: whether what is stored about addresses fits together (calico.md 1.7).

Exit status 0: it does. 1: problems were found, all of them named in the report. It writes nothing to the store.
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from bgpd.adapters.store import census as reading
from bgpd.cli.options import Stop, output
from bgpd.cli.render import BAD, Cell, Column, Styled, Table, show, show_json
from bgpd.cli.store import on_store, stores
from bgpd.core.ipam.census import Census
from bgpd.core.ipam.check import Allocation, Findings, Kind, Verdict, check
from bgpd.core.ipam.report import counts, report
from bgpd.model.wire import encode

NODES_SHOWN = 20
"""Nodes with most allocations that are listed, as calicoctl does."""

_LINES = {
    Kind.UNUSED: "addresses that are allocated but not in use",
    Kind.UNALLOCATED: "addresses that are in use but not allocated",
    Kind.OUTSIDE: "addresses that are in use but in no pool",
    Kind.HANDLE_EMPTY: "handles without addresses",
    Kind.HANDLE_MISSING: "addresses whose handle is missing",
    Kind.HANDLE_COUNT: "handles that count wrong",
    Kind.BLOCK_MALFORMED: "malformed blocks",
    Kind.RECORD_MALFORMED: "other malformed records",
    Kind.BLOCK_OUTSIDE: "blocks in no pool",
    Kind.BLOCKS_OVERLAP: "blocks within others",
    Kind.AFFINITY_BLOCKLESS: "affinities without a block",
    Kind.BLOCK_AFFINITYLESS: "blocks without their owner's affinity",
    Kind.AFFINITIES_TWO: "blocks with two affinities",
    Kind.AFFINITY_STALE: "affinities to a block of another",
    Kind.AFFINITY_PENDING: "affinities that are not confirmed",
}


@click.command("check")
@click.option("--show-all-ips", is_flag=True, help="List every allocated address, with the judgement on it.")
@click.option("--show-problem-ips", is_flag=True, help="List the problems, not their numbers only.")
@click.option(
    "--output-report",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report (JSON) to a file, for `bgpd ipam release --from-report`.",
)
@output()
@stores
def check_(*, show_all_ips: bool, show_problem_ips: bool, file: Path | None, output: str, store: str | None) -> None:
    """Look for addresses that are allocated but unused or used but not allocated, and for records that contradict each other.

    Exit status 1 where something is wrong. What is listed as unused can be released with `bgpd ipam release
    --from-report`, best with several reports that were made some time apart.
    """
    census = on_store(store, reading.take)
    findings = check(census)
    written = msgspec.Raw(encode(report(census, findings, every=show_all_ips)))
    if file is not None:
        _write(file, written)
    if output == "json":
        show_json(written)
    else:
        _tell(census, findings, every=show_all_ips, problems=show_problem_ips)
    if findings.problems:
        raise click.exceptions.Exit(1)


def _write(file: Path, written: msgspec.Raw) -> None:
    try:
        file.write_bytes(msgspec.json.format(bytes(written)) + b"\n")
    except OSError as error:
        raise Stop(f"cannot write the report to {file}: {error.strerror}") from error


def _tell(census: Census, findings: Findings, *, every: bool, problems: bool) -> None:
    number = counts(census, findings)
    click.echo(f"Checked IPAM as of revision {census.revision} of the store.")
    if census.locked:
        click.echo("The datastore is locked (datastoreReady is false).")
    click.echo(
        f"Found {number['pools']} pools, {number['blocks']} blocks, {number['affinities']} affinities, "
        f"{number['handles']} handles, {number['nodes']} nodes."
    )
    click.echo(
        f"Blocks record {number['allocations']} allocations: {number['in-use']} in use, {number[Kind.UNUSED]} not, "
        f"{number['not-judged']} not judged."
    )
    nodes = _top(findings)
    if nodes:
        click.echo(f"Nodes with most allocations: {nodes}.")
    if every and findings.allocations:
        show(_addresses(findings.allocations))
    for kind, what in _LINES.items():
        click.echo(f"Found {number[kind]} {what}.")
    if findings.problems and (problems or every):
        show(_problems(findings))
    click.echo(f"Check complete; found {number['problems']} problems.")
    if findings.problems and not problems and not every:
        click.echo("List them with --show-problem-ips.")


def _top(findings: Findings) -> str:
    numbers: dict[str, int] = {}
    for one in findings.allocations:
        if one.holding.node is not None:
            numbers[one.holding.node] = numbers.get(one.holding.node, 0) + 1
    top = sorted(numbers.items(), key=lambda pair: (-pair[1], pair[0]))[:NODES_SHOWN]
    return ", ".join(f"{node} {number}" for node, number in top)


def _addresses(allocations: tuple[Allocation, ...]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for one in allocations:
        verdict: Cell = one.verdict.value
        if one.verdict is Verdict.UNUSED:
            verdict = Styled(one.verdict.value, BAD)
        rows.append((str(one.holding.address), one.holding.node, one.holding.allocated_to, verdict, one.why))
    return Table([Column(title) for title in ("IP", "NODE", "ALLOCATED-TO", "STATE", "WHY")], rows)


def _problems(findings: Findings) -> Table:
    rows = [
        (
            one.kind.value,
            str(one.address or one.block or one.handle or one.key),
            one.handle if one.address is not None else None,
            one.detail,
        )
        for one in findings.problems
    ]
    return Table([Column(title) for title in ("PROBLEM", "WHERE", "HANDLE", "DETAIL")], rows)
