"""The demo's layout. Plain text where nobody watches; text of the box is escaped and never read as markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attempts import Row
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from immure import Result
from immure.evidence.models import Evidence

_WIDTH = 100
_STYLES = {"exact": "green", "stronger": "green", "approximated": "yellow", "unenforceable": "red"}


def make_console() -> Console:
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=_WIDTH, no_color=True)


def title(console: Console, text: str) -> None:
    console.print(Text(f"\n{text}", style="bold"))


def useful(console: Console, result: Result) -> None:
    for line in result.stdout.text().splitlines():
        console.print(Text("  " + "".join(one if one.isprintable() else "�" for one in line)))


def attempts(console: Console, rows: Iterable[Row]) -> None:
    table = _table("attempt", "outside", "in the box", "which wall")
    for row in rows:
        style = "red" if row.problem else "green"
        table.add_row(row.title, row.outside, Text(row.inside, style=style), row.wall)
    console.print(table)


def clauses(console: Console, result: Result) -> None:
    table = _table("clause", "wanted", "got", "by")
    for clause in result.report:
        got = Text(clause.got, style=_STYLES[clause.got])
        table.add_row(clause.clause, clause.wanted, got, _with_reason(clause.by, clause.why))
    console.print(table)


def _with_reason(by: str, why: str) -> str:
    return f"{by}; {why}" if why else by


def evidence(console: Console, measured: Evidence) -> None:
    table = _table("part", "holds", "what the kernel said before the first command")
    for part in measured.parts:
        held = Text("yes", style="green") if part.held else Text("no", style="red")
        table.add_row(part.part, held, part.observed if part.held else f"{part.observed}: {part.why}")
    console.print(table)


def times(console: Console, first_ms: float, fresh_ms: Sequence[float], whole_ms: Sequence[float]) -> None:
    def middle(values: Sequence[float]) -> str:
        ranked = sorted(values)
        return f"p50 {ranked[len(ranked) // 2]:.1f} ms, worst {ranked[-1]:.1f} ms of {len(ranked)}"

    console.print(f"  the first box of this process, spawner and image made for it: {first_ms:.1f} ms")
    console.print(f"  a fresh box, from the request to measured and let go: {middle(fresh_ms)}")
    console.print(f"  run(['/bin/true']) in a fresh box, to its end: {middle(whole_ms)}")


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for column in columns[:-1]:
        table.add_column(column, overflow="fold", no_wrap=column == "attempt")
    table.add_column(columns[-1], overflow="fold")
    return table
