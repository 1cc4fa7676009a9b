"""Links lead somewhere, snippets run, tables are fresh, and error texts are the code's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, Block, anchors, blocks, environment, links, names

#: Pages whose blocks build on each other.
RUNNABLE = ("docs/quickstart.md", "docs/python.md", "docs/cli.md", "docs/kept.md", "docs/policy/", "docs/recipes.md")


@pytest.mark.parametrize("name", names())
def test_each_link_leads_somewhere(name: str) -> None:
    broken = [target for target in links(name) if not _exists(name, target)]
    assert not broken


def _exists(name: str, target: str) -> bool:
    file, _, anchor = target.partition("#")
    path = (ROOT / name).parent / file if file else ROOT / name
    return path.exists() and (not anchor or anchor in anchors(path))


@pytest.mark.parametrize("name", [name for name in names() if name.startswith(RUNNABLE)])
def test_a_page_can_be_followed(name: str, tmp_path: Path) -> None:
    """Every block of a page, in order, in one folder and with one home. What is shown of a command it prints."""
    folder, home = tmp_path / "folder", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    printed: str | None = None
    for block in blocks(name, languages=("sh", "python", "text")):
        if block.language == "text":
            missing = [line for line in block.text.splitlines() if printed is not None and line not in printed]
            assert not missing, f"{block}: not printed: {missing}\n{printed}"
            continue
        command = ["bash", "-e", "-c"] if block.language == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*command, block.text],
            cwd=folder,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        # What follows a program is a signature.
        printed = done.stdout + done.stderr if block.language == "sh" else None


@pytest.mark.parametrize("block", blocks("docs/spec.md", languages=("yaml", "toml", "json")), ids=str)
def test_a_document_of_the_spec_page_is_one(block: Block, tmp_path: Path) -> None:
    path = tmp_path / f"box.{block.language}"
    path.write_text(block.text)
    for folder in ("job", "out"):
        (tmp_path / folder).mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "immure", "run", "-f", str(path), "--dry-run", "--", "true"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "clause report" in done.stdout


def test_the_tables_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "tools/generate_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_everything_public_is_in_the_reference() -> None:
    import immure
    from immure.engine.aio_process import AsyncProcess
    from immure.engine.files import Files

    page = (ROOT / "docs/reference.md").read_text()
    headings = set(re.findall(r"^### (.*)$", page, re.MULTILINE))
    assert set(immure.__all__) <= headings
    for shown in (immure.Sandbox, immure.Pool, immure.Process, AsyncProcess, Files):
        (section,) = re.findall(rf"^### {shown.__name__}\n(.*?)^##", page, re.MULTILINE | re.DOTALL)
        own = [name for name, value in vars(shown).items() if not name.startswith("_") and value.__doc__]
        missing = [name for name in own if not re.search(rf"^(await )?{name}\b", section, re.MULTILINE)]
        # What one part says to another is left out.
        assert set(missing) <= {"abandon", "claim_ready", "retire"}


def test_the_tree_of_errors_is_the_code_s() -> None:
    import immure.errors

    tree = [line.strip() for line in (immure.errors.__doc__ or "").splitlines() if "──" in line]
    page = (ROOT / "docs/python.md").read_text()
    assert len(tree) > 5
    assert [line for line in tree if line not in page] == []


def test_troubleshooting_quotes_the_code() -> None:
    source = "".join(path.read_text() for path in sorted((ROOT / "src/immure").rglob("*.py")))
    headings = re.findall(r"^### `(.*)`$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(headings) > 30
    assert [heading for heading in headings if not _is_quoted(heading, source)] == []


def _is_quoted(heading: str, source: str) -> bool:
    return all(part.strip() in source for part in _parts(heading))


def _parts(heading: str) -> list[str]:
    """The fixed parts of a text; ProtectionUnavailable puts its own together, and steps are the native program's."""
    text = re.sub(r"^(.*)( can't be enforced here)$", r"\1…\2", heading)
    text = re.sub(r"^(the box could not be made: ).*$", r"\1…", text)
    return [part for part in re.split("…", text) if len(part.strip(" :`")) > 3]


@pytest.mark.parametrize("name", names())
def test_a_document_is_finished(name: str) -> None:
    """No open places, and no paths of the machine that it was written on."""
    text = (ROOT / name).read_text()
    assert re.findall(r"\bTODO\b|\bTBD\b|\bXXX\b|/root/|/home/(?!you/|alice/)", text) == []
