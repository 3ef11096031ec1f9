"""The unprivileged account that runs a server which refuses to run as root."""

from __future__ import annotations

import os
import pwd

from tidemill_core.services._base import Account
from tidemill_core.services.errors import ServiceMissing

_CANDIDATES = ("postgres", "nobody")


def unprivileged(service: str) -> Account | None:
    """Choose the account for a server: None (ours) unless we are root.

    Raises:
        ServiceMissing: We are root, and there is no unprivileged account to use.
    """
    if os.getuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=found.pw_uid, gid=found.pw_gid)
    raise ServiceMissing(service, f"an account other than root ({' or '.join(_CANDIDATES)})", "add one")
