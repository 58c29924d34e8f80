"""How glibc hands out memory while a model is trained, as far as it must be told before a process begins.

A step takes and frees big buffers by the thousand, and glibc keeps what is left over at their edges for small pieces to
come: these few bytes are then in use, so that two free buffers beside each other do not become one, and the next larger
one takes new memory. Without what it keeps a training holds a twentieth to a tenth less.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

_OLDEST = (2, 35)  # that can ask for huge pages
_TUNABLES = {
    "tcache_count": "0",  # small pieces that each thread keeps
    "mxfast": "0",  # small pieces that all keep
    "hugetlb": "1",  # huge pages for all of the heap, where torch would align each big buffer to one
}
_OURS = {
    "GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in _TUNABLES.items()),
    "THP_MEM_ALLOC_ENABLE": "0",
}


def restart() -> None:
    """Begin this process again from its command line under these settings; return if it has them or cannot.

    To be called before anything is read or written.
    """
    if sys.executable and sys.orig_argv and _tells(os.environ):
        try:
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **_OURS})
        except OSError:
            return  # then it takes more memory


def _tells(environment: Mapping[str, str]) -> bool:
    """Whether there is a glibc that can be told, and neither we nor the user have done so."""
    if sys.platform != "linux" or any(name in environment for name in _OURS):
        return False
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        major, minor = version.split(".")[:2]
        return name == "glibc" and (int(major), int(minor)) >= _OLDEST
    except (ValueError, OSError):
        return False
