"""Packages of Python that a test needs, in a virtual environment of its own."""

import os
import pathlib
import subprocess
import sys

VENV_SECONDS = 120
INSTALL_SECONDS = 300


def with_slixmpp(venv):
    """Returns where slixmpp can be imported; else goes on in the virtual environment."""
    try:
        import slixmpp  # noqa: F401
    except ImportError:
        python = venv / "bin/python"
        if pathlib.Path(sys.prefix) == venv.resolve():
            sys.exit(f"slixmpp is missing from {venv}")
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=VENV_SECONDS)
        wanted = pathlib.Path(__file__).resolve().parents[1] / "slixmpp/requirements.txt"
        install = [python, "-m", "pip", "install", "-q", "-r", wanted]
        subprocess.run(install, check=True, timeout=INSTALL_SECONDS)
        os.execv(python, [python, *sys.argv])
