"""Preparation of a process before anything else runs: open streams, a home directory, places for caches.

`flowctl` begins with it, and so does a flow run in a process that a Prefect worker has started.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from storage.home import current_directory, default_home

# Where libraries put their caches. Each is a directory of the store, so that nothing is written elsewhere. Dot
# names: `flowctl gc` leaves them alone.
CACHES = {"MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def prepare_process() -> None:
    """Make the process independent of the environment that it was started in. Raises UsageError where it has no
    current directory, or no place for the store."""
    open_streams()
    print_anything()
    bypass_proxies()
    current_directory()
    os.environ["MPLBACKEND"] = "agg"  # matplotlib cannot be imported where this names none; our pictures need no window
    keep_caches(default_home() / "cache")


def open_streams() -> None:
    """Open standard streams that are closed on the null device.

    Otherwise the next file or socket gets their number, and reads or writes meant for the terminal go to that.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            assert opened == number
            os.set_inheritable(opened, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def print_anything() -> None:
    """Print characters that the terminal's encoding lacks, and names that are not valid UTF-8, as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def bypass_proxies() -> None:
    """Reach servers on this machine directly: a proxy cannot. Which spelling counts depends on the client."""
    hosts = [host for name in ("no_proxy", "NO_PROXY") for host in os.environ.get(name, "").split(",") if host.strip()]
    value = ",".join(dict.fromkeys([*map(str.strip, hosts), *LOOPBACK]))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = value


def keep_caches(folder: Path) -> None:
    """Keep caches of libraries in `folder` unless the user has named a place for them.

    Importing torch's compiler creates its cache, even for a plan. So where there is no store yet, or one that cannot be
    written to, as that of another user, caches last as long as the process. Where there is no home directory, as in a
    container with a user that /etc/passwd does not list, give one: importing Prefect asks for it.
    """
    if not _writable(folder):
        with suppress(OSError):  # no temporary directory either
            folder = Path(tempfile.mkdtemp(prefix="flowctl-cache-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for variable, name in CACHES.items():
        if not os.environ.get(variable):
            os.environ[variable] = str(folder / f".{name}")
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(folder / ".home")
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        os.environ["USER"] = _user()


def _writable(cache: Path) -> bool:
    """Whether files can be created in this folder of a store that is there; the folder may have to be created first."""
    try:
        folder = cache if cache.exists() or cache.is_symlink() else cache.parent
        return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    except OSError:  # out of reach, or too long a name: the command says so if it opens the store
        return False


def _user() -> str:
    """The user's name for libraries that ask, such as torch's compiler; the number where it has no name."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user-{os.getuid()}"
