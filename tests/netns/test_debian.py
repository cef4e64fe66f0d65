"""The Debian package: built by its one command, then installed, upgraded, removed and purged by dpkg on a copy of this system."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd import __version__
from bgpd.cli.install import UNITS

pytestmark = [pytest.mark.netns, pytest.mark.timeout(600)]

BUILD = Path(__file__).parents[2] / "config" / "debian" / "build"
KEPT = ("etc/.pwd.lock", "etc/passwd", "etc/shadow", "etc/group", "etc/gshadow", "etc/subuid", "etc/subgid")
"""The user stays; its files are locked by a file that stays, too."""
OTHERS = ("var/lib/dpkg", "var/log", "var/cache", "run", "tmp", "proc")
"""What dpkg and its triggers write for themselves."""
DEADLINE_S = 500.0
"""The build loads some 20 MB of libraries; dpkg reads its database."""

ENTER = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs {folder}
mkdir {folder}/up {folder}/work {folder}/root {folder}/deb
cp {package} {folder}/deb/bgpd.deb
mount -t overlay -o lowerdir=/,upperdir={folder}/up,workdir={folder}/work root {folder}/root
mount -t proc proc {folder}/root/proc
mount -t tmpfs tmpfs {folder}/root/run
mount --bind /dev {folder}/root/dev
mount -t tmpfs tmpfs {folder}/root/tmp
mkdir {folder}/root/run/deb
mount --bind {folder}/deb {folder}/root/run/deb
echo ready
exec sleep infinity
"""


class Copy:
    """This system's files under an overlay: what is written stays in it."""

    def __init__(self, folder: Path, package: Path) -> None:
        self._folder = folder
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", ENTER.format(folder=folder, package=package)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert "ready\n" == self._holder.stdout.readline()
        inside = Path(f"/proc/{self._holder.pid}/root{folder}")
        self.root, self.written = inside / "root", inside / "up"

    def run(self, *command: str, status: int = 0) -> str:
        enter = ["nsenter", "-t", str(self._holder.pid), "-m", "-r", "chroot", str(self._folder / "root")]
        path = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        done = subprocess.run(
            [*enter, *command], capture_output=True, text=True, env=path, timeout=DEADLINE_S, check=False
        )
        assert status == done.returncode, done.stdout + done.stderr
        return done.stdout

    def left(self) -> set[str]:
        """Return the files that are in the copy and not in this system, but for what dpkg writes for itself."""
        found = set()
        for folder, _, files in os.walk(self.written):
            for name in files:
                path = Path(folder, name)
                place = str(path.relative_to(self.written))
                removed = stat.S_ISCHR(path.lstat().st_mode)  # a mark of the overlay
                if not removed and not place.startswith((*KEPT, *OTHERS)):
                    found.add(place)
        return found

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    folder = tmp_path_factory.mktemp("deb")
    environment = {**os.environ, "DPKG_DEB_COMPRESSOR_TYPE": "none"}  # for speed
    done = subprocess.run(
        [str(BUILD), str(folder / "out")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=DEADLINE_S,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    package = Path(done.stdout.strip())
    assert package.name.startswith(f"bgpd_{__version__}_")
    (folder / "system").mkdir()
    made = Copy(folder / "system", package)
    yield made
    made.close()


def _install_by_hand(copy: Copy) -> None:
    """``bgpd install`` makes files and user on a living system, changes nothing a second time, and takes the files away again."""
    copy.run("userdel", "bgpd")
    before = copy.left()

    made = {
        one["path"]: one["outcome"]
        for one in json.loads(copy.run("/usr/lib/bgpd/bin/bgpd", "install", "-o", "json"))["files"]
    }

    assert "created" == made["/usr/local/lib/systemd/system/bgpd.service"]
    assert "unchanged" == made["/etc/bgpd/bgpd.toml"]
    assert copy.run("id", "-un", "bgpd")
    assert f"bgpd {__version__}\n" == copy.run("/usr/local/bin/bgpd", "--version")
    assert (
        "ExecReload=/usr/lib/bgpd/bin/bgpd reload"
        in (copy.root / "usr/local/lib/systemd/system/bgpd.service").read_text()
    )
    again = json.loads(copy.run("/usr/lib/bgpd/bin/bgpd", "install", "-o", "json"))["files"]
    assert {"unchanged"} == {one["outcome"] for one in again}
    copy.run("/usr/lib/bgpd/bin/bgpd", "install", "--remove")
    assert before - {"etc/iproute2/rt_protos.d/bgpd.conf"} == copy.left()


def test_package_lives_and_leaves(copy: Copy) -> None:
    """The package installs, its command runs and its units name it; an upgrade keeps the configuration; a purge leaves the user alone."""
    copy.run("dpkg", "-i", "/run/deb/bgpd.deb")

    assert f"bgpd {__version__}\n" == copy.run("bgpd", "--version")
    assert "etcd" in copy.run(
        "/usr/lib/bgpd/bin/python", "-c", "import bgpd.cli.run, bgpd.adapters.store.etcd as e; print(e.__name__)"
    )
    assert copy.run("id", "-un", "bgpd")
    for unit in UNITS:
        text = (copy.root / "usr/lib/systemd/system" / unit).read_text()
        assert "ExecStart=/usr/lib/bgpd/bin/bgpd " in text
    assert "is good" in copy.run("bgpd", "config", "check")
    assert list((copy.root / "usr/lib/bgpd/lib").rglob("*.pyc")), "started anew at each start"

    _install_by_hand(copy)

    (copy.root / "etc/bgpd/bgpd.toml").write_text("# mine\n")
    copy.run("dpkg", "-i", "/run/deb/bgpd.deb")
    assert "# mine\n" == (copy.root / "etc/bgpd/bgpd.toml").read_text()

    copy.run("dpkg", "--remove", "bgpd")
    assert {
        "etc/bgpd/bgpd.toml"
    } == copy.left()  # dpkg keeps what an operator may have changed, and what he removed away
    (copy.root / "var/lib/bgpd").mkdir(exist_ok=True)
    (copy.root / "var/lib/bgpd/store.db").write_text("state")
    copy.run("dpkg", "--purge", "bgpd")
    assert set() == copy.left()
    assert not (copy.root / "var/lib/bgpd").exists()
    assert copy.run("id", "-un", "bgpd")


def test_an_upgrade_restarts_the_daemon_and_not_the_speaker() -> None:
    """The package's scripts restart bgpd.service alone, and stop both units only where the package is removed."""
    scripts = {name: (BUILD.parent / name).read_text() for name in ("postinst", "prerm", "postrm")}

    assert "try-restart bgpd.service\n" in scripts["postinst"]
    assert "speaker.service" not in scripts["postinst"] + scripts["postrm"]
    assert "systemctl" not in scripts["prerm"].replace("systemctl disable --now bgpd.service bgpd-speaker.service", "")
    assert 'if [ "$1" = remove ]' in scripts["prerm"]
