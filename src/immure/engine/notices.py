"""What a caller is told while something takes long: by whoever listens, else through `logging`, to `immure`."""

from __future__ import annotations

from collections.abc import Callable

#: The command line's; None in a program, which has its own ways to hear.
listener: Callable[[str], None] | None = None


def tell(text: str) -> None:
    """One sentence, without a full stop."""
    if listener is not None:
        listener(text)
        return
    import logging

    logging.getLogger("immure").info(text)
