"""Links at the top of a root: where a path leads that goes through them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

#: As many as the kernel follows on one way.
_MOST = 40


def through_links(path: str, links: Mapping[str, str]) -> str:
    """An absolute path with the links of the root followed, as from inside: `/bin/tool` lies in `/usr/bin`.

    `links` are names at the top and where each leads. `..` above the root is the root. What it can't tell is left in
    the path: a `..` behind another name, and the first of links that lead to each other.
    """
    for _ in range(_MOST):
        first, _, rest = path.lstrip("/").partition("/")
        if first not in links:
            break
        path = _without_dots(f"{links[first]}/{rest}")
    return path


def first_name(path: str) -> str:
    """The name at the top that an absolute path begins with."""
    return path.lstrip("/").partition("/")[0]


def _without_dots(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        del parts[0]
    return "/" + "/".join(parts)
