"""What a caller is told while something takes long: by whoever listens, else through `logging`, to `immure`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

#: The command line's; None in a program, which has its own ways to hear.
listener: Callable[[str], None] | None = None
#: How long something takes before it is worth a word.
_PATIENCE_S = 1.0
_SELDOM = 5


def tell(text: str) -> None:
    """One sentence, without a full stop."""
    if listener is not None:
        listener(text)
        return
    import logging

    logging.getLogger("immure").info(text)


@contextmanager
def tell_when_long(text: str, *, seldom: bool = False) -> Generator[None]:
    """Says what is being done in this context, where it takes more than a moment; a longer one for what recurs."""
    timer = threading.Timer(_PATIENCE_S * (_SELDOM if seldom else 1), tell, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
