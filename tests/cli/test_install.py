"""``bgpd install``: the files of the system, twice, and away again; the manual page and the completions are what the commands say."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import click
import pytest

from bgpd.cli import install
from bgpd.cli.main import cli
from bgpd.cli.manual import page
from tests.cli.conftest import Bgpd

pytestmark = pytest.mark.netns

CONFIG = Path(__file__).parents[2] / "config"
COMMAND = ("--command", "/usr/lib/bgpd/bin/bgpd")
REQUESTS = {"TH", "SH", "SS", "PP", "TP", "B", "BR", "I", "nf", "fi"}


def outcomes(bgpd: Bgpd, *arguments: str) -> dict[str, str]:
    result = bgpd("install", *arguments, "-o", "json")
    assert 0 == result.exit_code, result.output
    return {one["path"]: one["outcome"] for one in json.loads(result.stdout)["files"]}


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def commands(group: click.Group, context: click.Context, path: str = "bgpd") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name in group.list_commands(context):
        one = group.get_command(context, name)
        assert one is not None
        found |= commands(one, context, f"{path} {name}") if isinstance(one, click.Group) else {f"{path} {name}": one}
    return found


def test_all_files_come_once_and_go(bgpd: Bgpd, tmp_path: Path) -> None:
    """A first run creates every file, a second changes nothing, a removal takes all but the configuration."""
    where = ("--root", str(tmp_path), *COMMAND)

    assert {"created"} == set(outcomes(bgpd, *where).values())
    assert {
        "etc/bgpd/bgpd.toml",
        "etc/iproute2/rt_protos.d/bgpd.conf",
        "etc/sysusers.d/bgpd.conf",
        "usr/local/bin/bgpd",
        "usr/local/lib/systemd/system/bgpd.service",
        "usr/local/lib/systemd/system/bgpd-speaker.service",
        "usr/local/share/bash-completion/completions/bgpd",
        "usr/local/share/zsh/site-functions/_bgpd",
        "usr/local/share/fish/vendor_completions.d/bgpd.fish",
        "usr/local/share/man/man8/bgpd.8",
        "usr/local/share/doc/bgpd/examples/bgpd.toml",
        "usr/local/share/doc/bgpd/examples/bgpd-wireguard-go.conf",
    } == set(tree(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {"unchanged"} == set(outcomes(bgpd, *where).values())
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {"removed"} == set(outcomes(bgpd, *where, "--remove").values())
    assert {"etc/bgpd/bgpd.toml"} == set(tree(tmp_path))
    assert {"unchanged"} == set(outcomes(bgpd, *where, "--remove").values())


def test_dry_run_writes_nothing(bgpd: Bgpd, tmp_path: Path) -> None:
    """With --dry-run the same is said, and nothing is written or removed."""
    where = ("--root", str(tmp_path), *COMMAND)

    shown = bgpd("install", *where, "--dry-run")

    assert f"would be created  {tmp_path}/etc/bgpd/bgpd.toml" in shown.stdout.splitlines()
    assert [] == list(tmp_path.iterdir())
    outcomes(bgpd, *where)
    before = tree(tmp_path)
    assert {"removed"} == set(outcomes(bgpd, *where, "--remove", "--dry-run").values())
    assert before == tree(tmp_path)


def test_a_configuration_is_the_operators(bgpd: Bgpd, tmp_path: Path) -> None:
    """What the operator wrote is neither changed nor removed; a unit of an older version is brought up to date."""
    where = ("--root", str(tmp_path), *COMMAND)
    outcomes(bgpd, *where)
    (tmp_path / "etc/bgpd/bgpd.toml").write_text("# mine\n")
    unit = tmp_path / "usr/local/lib/systemd/system/bgpd.service"
    new = unit.read_bytes()
    unit.write_text("# old\n")

    done = outcomes(bgpd, *where)

    assert {str(unit)} == {path for path, what in done.items() if what == "updated"}
    assert new == unit.read_bytes()
    assert "# mine\n" == (tmp_path / "etc/bgpd/bgpd.toml").read_text()


def test_units_start_the_command_that_was_named(bgpd: Bgpd, tmp_path: Path) -> None:
    """Each Exec line of both units, and the command on the path, name it; nothing else of the units differs from config/systemd."""
    outcomes(bgpd, "--root", str(tmp_path), "--prefix", "/usr", *COMMAND)

    for name in install.UNITS:
        unit = (tmp_path / "usr/lib/systemd/system" / name).read_text()
        assert (CONFIG / "systemd" / name).read_text() == unit.replace(COMMAND[1], install.COMMAND)
        assert re.findall(r"^Exec\w+=(\S+)", unit, re.MULTILINE)
        assert {COMMAND[1]} == set(re.findall(r"^Exec\w+=(\S+)", unit, re.MULTILINE))
    assert (tmp_path / "usr/lib/sysusers.d/bgpd.conf").exists()
    assert f'#!/bin/sh\nexec {COMMAND[1]} "$@"\n' == (tmp_path / "usr/bin/bgpd").read_text()
    assert os.access(tmp_path / "usr/bin/bgpd", os.X_OK)


@pytest.mark.parametrize(
    "command", ["/root/bin/bgpd", "/home/me/v/bin/bgpd", "/tmp/v/bin/bgpd", "bgpd", "/opt/a b/bgpd"]
)
def test_a_command_that_the_units_cannot_start_is_refused(bgpd: Bgpd, command: str) -> None:
    """A command in a home or a temporary directory, which the units do not see, is refused before anything is written."""
    result = bgpd("install", "--dry-run", "--command", command)

    assert (2, "") == (result.exit_code, result.stdout)
    assert command in result.stderr


def test_a_directory_that_cannot_be_written_is_named(bgpd: Bgpd, tmp_path: Path) -> None:
    """What cannot be written is told by its path, with exit status 1."""
    (tmp_path / "etc").write_text("a file")

    result = bgpd("install", "--root", str(tmp_path), *COMMAND)

    assert 1 == result.exit_code
    assert f"{tmp_path}/etc" in result.stderr


def test_the_manual_names_every_command_and_option() -> None:
    """Each command has a section with each of its options, in what roff takes for text: ASCII, and no request but ours."""
    text = page(cli)
    sections = {part.split(" [")[0].split('"')[0].strip(): part for part in text.split('.SS "')[1:]}
    context = click.Context(cli, info_name="bgpd")

    assert isinstance(cli, click.Group)
    found = commands(cli, context)
    assert set(found) == {name.replace("\\-", "-") for name in sections}
    for path, command in found.items():
        section = sections[path.replace("-", "\\-")].replace("\\-", "-")
        for parameter in command.params:
            assert all(option in section for option in parameter.opts if option.startswith("-"))
    assert text.isascii()
    assert {line[1:].split(" ")[0] for line in text.splitlines() if line.startswith(".")} <= REQUESTS
    assert not [line for line in text.splitlines() if line.startswith("'")]


def test_completion_in_bash(bgpd: Bgpd, tmp_path: Path) -> None:
    """The script is bash's, and completes a command and its option by asking the command."""
    outcomes(bgpd, "--root", str(tmp_path), *COMMAND)
    script = tmp_path / "usr/local/share/bash-completion/completions/bgpd"
    (tmp_path / "bgpd").write_text('#!/bin/sh\nexec python -m bgpd.cli.main "$@"\n')
    (tmp_path / "bgpd").chmod(0o755)
    ask = f'. {script}; COMP_WORDS=(bgpd WORD); COMP_CWORD=1; _bgpd_completion bgpd; echo "${{COMPREPLY[@]}}"'

    def completed(words: str, last: int) -> set[str]:
        line = ask.replace("bgpd WORD", f"bgpd {words}").replace("COMP_CWORD=1", f"COMP_CWORD={last}")
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, env=environment, timeout=60, check=True
        )
        return set(done.stdout.split())

    assert {"reload", "reset", "refresh", "replace"} == completed("re", 1)
    assert {"--dry-run"} == completed("install --d", 2)
