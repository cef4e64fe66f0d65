"""``bgpd ipam release``: giving addresses back by hand, or what reports of ``bgpd ipam check`` agree on (calico.md 1.7).

Laws: an address goes only as the allocation that was meant: with its handle and sequence number where they are given, and
always with those of a report. What reports name is checked once more before, so that what came into use since stays. All
or none per handle. Releasing again is no failure: what nobody has is said to be so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from bgpd.adapters.store import census as reading
from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Compare, Delete, Store
from bgpd.adapters.store.ipam.release import release, release_handle, release_whole
from bgpd.cli.options import BadInput, Stop, output
from bgpd.cli.render import show_json
from bgpd.cli.store import on_store, stores
from bgpd.core.ipam.block import Refused
from bgpd.core.ipam.check import Allocation, Verdict, check
from bgpd.core.ipam.release import Release, Released
from bgpd.core.ipam.report import Leak, Report, agreed
from bgpd.model.prefix import Address
from bgpd.model.wire import encode, from_builtin

REPORT_BYTES = 256 << 20
"""Largest report that is read: a million addresses."""


class Kept(msgspec.Struct, frozen=True):
    """What was not released."""

    what: str
    reason: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    released: tuple[Address, ...] = ()
    unallocated: tuple[Address, ...] = ()
    """Nobody had them."""
    handles: tuple[str, ...] = ()
    """Handles without addresses that were deleted."""
    kept: tuple[Kept, ...] = ()

    def joined(self, other: Outcome) -> Outcome:
        return Outcome(
            released=(*self.released, *other.released),
            unallocated=(*self.unallocated, *other.unallocated),
            handles=(*self.handles, *other.handles),
            kept=(*self.kept, *other.kept),
        )


@click.command("release")
@click.option("--ip", "ips", multiple=True, metavar="ADDRESS", help="An address to release; may be given again.")
@click.option("--handle", help="Release all that this handle has; with --ip: only if this handle has it.")
@click.option(
    "--sequence", type=click.IntRange(min=0), help="With --ip: only if this is its allocation's sequence number."
)
@click.option(
    "--from-report",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Release what a report of `bgpd ipam check --output-report` names as not in use; of several: what all of them name.",
)
@click.option("--dry-run", is_flag=True, help="With --from-report: say what would be released.")
@output()
@stores
def release_(
    *,
    ips: tuple[str, ...],
    handle: str | None,
    sequence: int | None,
    files: tuple[Path, ...],
    dry_run: bool,
    output: str,
    store: str | None,
) -> None:
    """Release addresses: --ip, --handle, or what reports agree on.

    Exit status 1 where something was not released, though it is in use by somebody.
    """
    _usable(ips=ips, handle=handle, sequence=sequence, files=files, dry_run=dry_run)
    if files:
        reports = [_report(file) for file in files]
        outcome = on_store(store, lambda opened: _by_reports(opened, reports, dry_run=dry_run))
    elif ips:
        wishes = [Release(address=_address(ip), handle_id=handle, sequence=sequence) for ip in ips]
        outcome = on_store(store, lambda opened: _by_address(opened, wishes))
    else:
        outcome = on_store(store, lambda opened: _by_handle(opened, handle or ""))
    if output == "json":
        show_json(msgspec.Raw(encode(outcome)))
    else:
        _tell(outcome, dry_run=dry_run)
    if outcome.kept:
        raise Stop("\n  ".join(["not released:", *(f"{one.what}: {one.reason}" for one in outcome.kept)]))


def _usable(
    *, ips: tuple[str, ...], handle: str | None, sequence: int | None, files: tuple[Path, ...], dry_run: bool
) -> None:
    """End the command where the options do not go together."""
    if files and (ips or handle is not None or sequence is not None):
        raise BadInput("--from-report goes alone: a report says itself which handles and sequence numbers are meant")
    if not files and not ips and handle is None:
        raise BadInput("say what to release: --ip ADDRESS, --handle HANDLE or --from-report FILE")
    if sequence is not None and len(ips) != 1:
        raise BadInput("--sequence needs one --ip: it is the number of one allocation")
    if dry_run and not files:
        raise BadInput("--dry-run goes with --from-report")


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise BadInput(f"--ip: {error}") from error


def _report(file: Path) -> Report:
    try:
        if file.stat().st_size > REPORT_BYTES:
            raise BadInput(f"{file}: larger than {REPORT_BYTES >> 20} MB: it is no report")
        return msgspec.json.decode(file.read_bytes(), type=Report, dec_hook=from_builtin)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: is no report of `bgpd ipam check --output-report`: {error}") from error


# ------------------------------------------------------------------ releasing


async def _by_address(store: Store, wishes: Sequence[Release]) -> Outcome:
    return _outcome(await release(store, wishes), [str(wish.address) for wish in wishes])


async def _by_handle(store: Store, handle: str) -> Outcome:
    found = _outcome(await release_handle(store, handle), [f"handle {handle}"])
    if not found.released and not found.kept:
        click.echo(f"bgpd: handle {handle} has no address", err=True)
    return found


async def _by_reports(store: Store, reports: Sequence[Report], *, dry_run: bool) -> Outcome:
    """Release what *reports* agree on, as far as a check finds it still."""
    census = await reading.take(store)
    for one in reports:
        if one.cluster_guid != census.cluster_guid:
            raise BadInput(
                f"a report is about cluster {one.cluster_guid or '(without id)'}, "
                f"the store is of {census.cluster_guid or '(without id)'}"
            )
    leaks = agreed(reports)
    findings = check(census)
    wishes, outcome = _still(leaks.addresses, findings.allocations)
    gone = tuple(one for one in leaks.handles if one in findings.leaked_handles)
    for handle, some in wishes.items():
        outcome = outcome.joined(
            Outcome(released=tuple(one.address for one in some))
            if dry_run
            else _outcome(await release_whole(store, some), [f"handle {handle}"])
        )
    for name, revision in gone:
        key = keys.handle_key(name)
        if dry_run or (await store.txn((Compare(key, revision),), (Delete(key),))).succeeded:
            outcome = outcome.joined(Outcome(handles=(name,)))
        else:
            outcome = outcome.joined(Outcome(kept=(Kept(f"handle {name}", "it has changed since the report"),)))
    return outcome


def _still(leaks: Sequence[Leak], allocations: Sequence[Allocation]) -> tuple[dict[str, list[Release]], Outcome]:
    """Return what of the reported is still so, by handle, and what became of the rest. All or none per handle."""
    present = {str(one.holding.address): one for one in allocations}
    valid: dict[str, str] = {}
    for one in allocations:
        if one.verdict is not Verdict.UNUSED and one.holding.handle is not None:
            valid.setdefault(one.holding.handle, str(one.holding.address))
    wishes: dict[str, list[Release]] = {}
    unallocated: list[Address] = []
    kept: list[Kept] = []
    for leak in leaks:
        now = present.get(leak.ip)
        if now is None:
            unallocated.append(Address.parse(leak.ip))
        elif (now.holding.handle, now.holding.sequence) != (leak.handle, leak.sequence):
            kept.append(Kept(leak.ip, f"it was assigned anew since the report, to handle {now.holding.handle}"))
        elif now.verdict is not Verdict.UNUSED:
            kept.append(Kept(leak.ip, f"it is in use, or not known to be unused: {now.why}"))
        elif leak.handle in valid:
            kept.append(Kept(leak.ip, f"its handle {leak.handle} has {valid[leak.handle]} as well, which stays"))
        else:
            wishes.setdefault(leak.handle, []).append(
                Release(address=now.holding.address, handle_id=leak.handle, sequence=leak.sequence)
            )
    return wishes, Outcome(unallocated=tuple(unallocated), kept=tuple(kept))


def _outcome(answer: Released | Refused, what: Sequence[str]) -> Outcome:
    if isinstance(answer, Refused):
        return Outcome(kept=tuple(Kept(one, answer.reason) for one in what))
    return Outcome(
        released=answer.released,
        unallocated=answer.unallocated,
        kept=tuple(Kept(str(address), reason) for address, reason in answer.refused),
    )


def _tell(outcome: Outcome, *, dry_run: bool) -> None:
    done = "would be released" if dry_run else "released"
    for address in outcome.released:
        click.echo(f"{address}: {done}")
    for address in outcome.unallocated:
        click.echo(f"{address}: is not assigned")
    for handle in outcome.handles:
        click.echo(f"handle {handle}: {'would be deleted' if dry_run else 'deleted'}")
