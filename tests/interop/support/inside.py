"""A test in a place of its own: network, mounts and processes apart, that end with it however it ends."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile

# What tells the program that it is inside, and of what kind the place is.
INSIDE = "COREFIRE_TEST_INSIDE"
NAMESPACES = "namespaces"
LOOPBACK = "loopback"
# When the first process of the place ends, the kernel takes all of them.
APART = ["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
NAMES = 'mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec "$@"'
SHELL = ["sh", "-c", NAMES, "sh"]


def way_in(as_user=False):
    """The command that runs another inside; None where that is not permitted. `as_user`: also where a user may do it only
    as the root of users of its own, who is nobody to the rest of the machine."""
    if not shutil.which("unshare"):
        return None
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for users in ([], ["--user", "--map-root-user"])[: 1 + as_user]:
        way = ["unshare", *users, *APART, *SHELL]
        if subprocess.run([*way, "ip", "netns", "add", "attempt"], **quiet).returncode == 0:
            return way
    return None


def enter(way, seconds, beside=()):
    """Runs this program again with `way` before it (None: where it is) and `beside` behind that, for so long at most. Gives
    its exit status."""
    command = [*(way or []), *beside, sys.executable, *sys.argv]
    # They end with us, whatever ends us.
    if shutil.which("setpriv"):
        command = ["setpriv", "--pdeathsig", "KILL", *command]
    # Whatever is left of files goes with this folder.
    with tempfile.TemporaryDirectory(prefix="corefire-inside-") as folder:
        # Servers of others do not all run as root.
        os.chmod(folder, 0o755)
        environment = {**os.environ, "TMPDIR": folder, INSIDE: NAMESPACES if way else LOOPBACK}
        # A group of processes of their own, so that they can be ended together.
        running = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            return running.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"FAILED: not done within {seconds} s", flush=True)
            return 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
