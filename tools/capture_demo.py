"""Captures a short session, as plain text, into README.md between its markers.

    python tools/capture_demo.py            # write it
    python tools/capture_demo.py --check    # exit 1 where README.md shows another one

The commands are run as they are shown, by bash, from the top of the checkout, as somebody whose home holds a key. What
must be denied is first seen to succeed outside a box where that can be done on this machine alone.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- capture: begin (tools/capture_demo.py) -->", "<!-- capture: end -->"
SHOWN_HOME = "/home/you"


@dataclass(frozen=True)
class Scene:
    """A command, what its output must hold, and for one that is denied the reason and its control."""

    command: str
    expected: str
    reason: str = ""
    control: str = ""


SCENES = (
    Scene(
        "immure run -v examples/untrusted_report:/work -- python3 report.py orders.csv",
        expected="all ",
    ),
    Scene(
        "immure run -- cat ~/.ssh/id_ed25519",
        expected="No such file or directory",
        reason="denied: the box has a root of its own, and only what you mount is in it",
        control="cat ~/.ssh/id_ed25519",
    ),
    Scene(
        "immure run -- bash -c 'echo secret > /dev/tcp/1.1.1.1/443'",
        expected="Network is unreachable",
        reason="denied: the box has a network of its own, with `lo` and nothing else",
    ),
    Scene("python examples/level.py", expected="measured L2"),
)


def main() -> int:
    """Writes the capture, or compares it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    text = README.read_text()
    fresh = _put(text, capture())
    if options.check:
        difference = list(difflib.unified_diff(normalised(text), normalised(fresh), "README.md", "a fresh capture"))
        print("\n".join(difference), end="")
        return int(bool(difference))
    README.write_text(fresh)
    return 0


def capture() -> str:
    """The session. Raises RuntimeError where a command doesn't do what README.md says of it."""
    with TemporaryDirectory() as home:
        folder = Path(home, ".ssh")
        folder.mkdir(mode=0o700)
        (folder / "id_ed25519").write_text("a key that is none\n")
        lines = [line for scene in SCENES for line in _play(scene, home)]
    return "```console\n" + "\n".join(lines) + "\n```"


def _play(scene: Scene, home: str) -> list[str]:
    if scene.control and _run(scene.control, home)[0] != 0:
        raise RuntimeError(f"the control failed outside a box: {scene.control}")
    status, output = _run(scene.command, home)
    if scene.expected not in output or (status == 0) == bool(scene.reason):
        raise RuntimeError(f"{scene.command}\nended with status {status}, saying\n{output}")
    shown = [line.rstrip() for line in output.replace(home, SHOWN_HOME).splitlines()]
    return [f"$ {scene.command}", *shown, *([f"# {scene.reason}"] if scene.reason else [])]


def _run(command: str, home: str) -> tuple[int, str]:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": home,
        "LANG": "C.UTF-8",
        # Plans are remembered where the caller's are, and not in the home that is made up.
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser()),
    }
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def _put(text: str, session: str) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RuntimeError(f"README.md lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{session}\n{END}{after}"


def normalised(text: str) -> list[str]:
    """The lines without what depends on the host: what was observed of each part, and how bash names itself."""
    text = re.sub(r"^(  \S+ +holds  )(?!own ).*$", r"\1…", text, flags=re.MULTILINE)
    return re.sub(r"bash: line \d+: ", "bash: ", text).splitlines()


if __name__ == "__main__":
    sys.exit(main())
