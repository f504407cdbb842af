"""The environment that the suites are served from: `requirements.txt`, with hashes, in `.cache`.

The package brings some eighty others (clients of model providers, plotting, …). None of them is a
dependency of the gateway, so they are locked in a file of their own and not in `uv.lock`.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.agentdojo.scope import HERE
from bench.processes import ROOT

REQUIREMENTS: Final = HERE / "requirements.txt"


def prepare_python() -> Path:
    """Return the Python of an environment with exactly the locked packages; make it if need be.

    Raises `subprocess.CalledProcessError` where they cannot be had.
    """
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    folder = ROOT / ".cache" / f"agentdojo-{wanted[:12]}"
    python, stamp = folder / "bin" / "python", folder / ".complete"
    if not stamp.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run(
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True
        )
        install = [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes"]
        subprocess.run([*install, "-r", str(REQUIREMENTS)], check=True)
        stamp.touch()
    return python
