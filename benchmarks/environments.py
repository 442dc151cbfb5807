"""A virtual environment for each peer, with exactly the versions of ``peers/NAME.txt``, made when first needed.

What ``peers/NAME.npm`` names comes with it, by npm: servers that are published there.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
BUILD = Path(__file__).parent.parent / "build" / "benchmarks"


class CannotInstall(Exception):
    """A peer's environment cannot be made here; the text says why."""


def python_of(peer: str) -> str:
    """Return the interpreter of a peer's environment; Orchestra has the one that runs this.

    Raises:
        CannotInstall: Something that it needs is not here, or not to be had.
    """
    if peer == "orchestra":
        return sys.executable
    wanted, servers = PEERS / f"{peer}.txt", PEERS / f"{peer}.npm"
    packages = servers.read_text().split() if servers.exists() else []
    folder = BUILD / "environments" / peer
    stamp, mark = folder / "stamp", hashlib.sha256(wanted.read_bytes() + "".join(packages).encode()).hexdigest()
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != mark:
        print(f"Installing {peer} into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        _install([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(wanted)])
        if packages:
            _install(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", *packages])
        stamp.write_text(mark)
    return str(python)


def _install(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, env={**os.environ, "SCARF_ANALYTICS": "false"})
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotInstall(f"{command[0]} cannot install what it needs: {error}") from error
