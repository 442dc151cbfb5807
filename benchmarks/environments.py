"""A virtual environment for each peer, with exactly the versions of ``peers/NAME.txt``, made when first needed."""

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
BUILD = Path(__file__).parent.parent / "build" / "benchmarks"


def python_of(peer: str) -> str:
    """Return the interpreter of a peer's environment; Orchestra has the one that runs this."""
    if peer == "orchestra":
        return sys.executable
    wanted = PEERS / f"{peer}.txt"
    folder = BUILD / "environments" / peer
    stamp, mark = folder / "stamp", hashlib.sha256(wanted.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != mark:
        print(f"Installing {peer} into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted]
        subprocess.run(install, check=True)
        stamp.write_text(mark)
    return str(python)
