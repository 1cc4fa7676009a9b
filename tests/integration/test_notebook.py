"""In a notebook: a real kernel, whose cells run within an event loop that goes on between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .processes import eventually, running

pytestmark = pytest.mark.root

BLOCKING = """
from immure import AsyncSandbox, Sandbox
box = Sandbox()
print(box.exec(["echo", "blocking"]).stdout.text(), end="")
"""
AWAITED = """
import asyncio
async with AsyncSandbox() as other:
    answers = await asyncio.gather(*(other.exec(["echo", str(n)]) for n in range(5)))
print(*(one.stdout.text().strip() for one in answers))
"""
INTERRUPTED = """
import os, signal, threading
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    box.exec(["sleep", "300"])
except KeyboardInterrupt:
    print("interrupted", box.exec(["echo", "and on"]).stdout.text(), end="")
"""
LEFT_OPEN = """
process = box.start(["sleep", "300"])
print(box._box.pid)
"""


def said(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.mark.filterwarnings("ignore")
def test_cells_use_boxes_and_the_kernel_takes_them_along(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    new_cell: Callable[[str], Any] = nbformat.v4.new_code_cell
    notebook = nbformat.v4.new_notebook(
        cells=[new_cell(one.strip()) for one in (BLOCKING, AWAITED, INTERRUPTED, LEFT_OPEN)]
    )
    nbclient.NotebookClient(notebook, timeout=40, kernel_name="python3").execute()
    first, second, third, last = (said(cell) for cell in notebook.cells)
    assert first == "blocking\n"
    assert second == "0 1 2 3 4\n"
    assert third == "interrupted and on\n"
    assert eventually(lambda: not running(int(last)))
