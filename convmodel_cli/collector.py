"""When Python looks for garbage: not while a command begins, which is until it has read its data and imported torch.

Importing makes objects by the hundred thousand, and all of them stay. To look through them again and again takes a
fifth of the import of torch and transformers, and once more at the end up to a second.
"""

from __future__ import annotations

import atexit
import gc

_is_paused = False


def pause() -> None:
    """Look for none until `resume`, nor when the process, which is ours alone, ends."""
    global _is_paused
    _is_paused = gc.isenabled()
    gc.disable()
    atexit.register(gc.freeze)


def resume() -> None:
    """Look for it from now on, but never among what there is already. Without `pause` this changes nothing."""
    global _is_paused
    if _is_paused:
        _is_paused = False
        gc.freeze()
        gc.enable()
