"""Debian's Python and numpy for another architecture, unpacked into the cache for qemu-user."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from edgekit import paths

PACKAGES = ("python3.11", "python3-numpy", "musl")
CONFIG = """
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Sandbox::User "";
Dir::State "{work}/state";
Dir::State::status "{work}/status";
Dir::Cache "{work}/cache";
Dir::Etc::sourcelist "{work}/sources.list";
Dir::Etc::sourceparts "/dev/null";
"""
SOURCES = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {url} bookworm main\n"


def missing() -> str:
    """Why no sysroot can be made here, "" where it can."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            return f"{tool} is not there: the sysroot comes from Debian's packages"
    return ""


def make(arch: str) -> Path:
    """Folder with a Python 3.11 and numpy of a Debian architecture; nothing is installed or run."""
    root = paths.cache("sysroot") / arch
    if root.is_dir():
        return root
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        work = Path(folder)
        for part in ("state/lists/partial", "cache/archives/partial", "root"):
            (work / part).mkdir(parents=True)
        (work / "status").touch()
        (work / "apt.conf").write_text(CONFIG.format(arch=arch, work=work))
        (work / "sources.list").write_text(SOURCES.format(url="http://deb.debian.org/debian"))
        options = ["-qq", "-y", "--no-install-recommends", "--download-only"]
        for command in (["update", "-qq"], ["install", *options, *PACKAGES]):
            subprocess.run(
                ["apt-get", *command],
                env={"APT_CONFIG": str(work / "apt.conf"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                stdin=subprocess.DEVNULL,
                check=True,
                capture_output=True,
                timeout=300,
            )
        for package in sorted((work / "cache" / "archives").glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(package), str(work / "root")], check=True)
        (work / "root").rename(root)
    return root
