"""Run a program under a name for a uid that has none: `python -m tidemill_core.services.namespace COMMAND ...`.

``initdb`` refuses a uid without an entry in the password file, which is what containers give
with ``--user 12345``. In a user namespace of its own (user_namespaces(7)) the program sees the
uid of an account that has a name, while every file it makes still belongs to the real uid.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000  # linux/sched.h


def has_name() -> bool:
    """Tell whether this process's uid has an entry in the password file."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def under_a_name(command: list[str]) -> list[str]:
    """Give the command that runs `command` under a name; the same one if our uid has a name."""
    if has_name() or not sys.platform.startswith("linux"):
        return command
    return [sys.executable, "-m", __name__, *command]


def main(command: list[str]) -> None:
    """Enter a namespace in which our uid is a named account's, and become `command`."""
    uid, gid = os.getuid(), os.getgid()
    account = next(each for each in pwd.getpwall() if each.pw_uid != 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        why = os.strerror(ctypes.get_errno())
        sys.exit(f"uid {uid} has no entry in the password file, and a user namespace is refused: {why}")
    # The kernel takes a gid map of an unprivileged process only after setgroups is given up.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{account.pw_uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{account.pw_gid} {gid} 1")
    os.execvp(command[0], command)  # noqa: S606 - the arguments are ours


if __name__ == "__main__":
    main(sys.argv[1:])
