"""An untrusted program outside a box, as a control, and then inside: `make demo`.

Exit status 1 where anything that should have been denied was not, or where its control shows nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import show
from attempts import DISK_MIB, FILL_MIB, PUBLIC_NAME, PUBLIC_RESOLVER, PUBLIC_TCP, Row, compare, planned
from stage import CONNECTION, QUERY, Stage, set_stage

from immure import ImmureError, Result, Sandbox, run
from immure.evidence.models import Evidence

PATH = "/usr/bin:/bin"
FRESH_BOXES = 30


def main() -> int:
    try:
        return demonstrate(show.make_console())
    except ImmureError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def demonstrate(console: show.Console) -> int:
    with set_stage() as stage:
        outside, leaks = run_outside(stage)
        began = perf_counter()
        with Sandbox(mounts=[(stage.inside, "/work", "ro")], disk_mib=DISK_MIB, timeout_s=60) as box:
            first_ms = (perf_counter() - began) * 1e3
            result, measured = run_inside(box, stage), box.evidence()
        inside = findings(result.stderr.text())
        rows = [compare(attempt, outside, inside) for attempt in planned(stage, str(Path.home()))]
        problems = [*(row.problem for row in rows if row.problem), *leaks, *seen_from_host(stage, result)]
    present(console, result, rows, measured)
    show.title(console, "Time to start")
    show.times(console, first_ms, *measure())
    return conclude(console, problems, rows, measured)


def command(stage: Stage, homes: list[Path], *, public: bool) -> list[str]:
    targets = {
        "homes": [str(home) for home in homes],
        "tcp": [stage.listener, *([PUBLIC_TCP] if public else [])],
        "resolvers": [stage.resolver, *([PUBLIC_RESOLVER] if public else [])],
        "names": [PUBLIC_NAME] if public else [],
        "fill_mib": FILL_MIB,
    }
    return ["python3", "report.py", "orders.csv", "--targets", json.dumps(targets)]


def run_outside(stage: Stage) -> tuple[dict, list[str]]:
    """The control: the same program as the caller, in a folder of its own, on nothing but fakes."""
    result = subprocess.run(
        command(stage, [stage.home], public=False),
        cwd=stage.outside,
        env={"PATH": PATH, "HOME": str(stage.home), "TMPDIR": str(stage.space)},
        capture_output=True,
        check=True,
        text=True,
    )
    problems = []
    if not {"planted.sh", "orders.csv"} <= set(stage.changed(stage.outside)):
        problems.append("the control left its folder as it was, so that an unchanged one shows nothing")
    everything = {CONNECTION, QUERY}
    if stage.heard_within(5, everything) != everything:
        problems.append("the control was not heard by the listener and the resolver")
    stage.heard.clear()
    return findings(result.stderr), problems


def run_inside(box: Sandbox, stage: Stage) -> Result:
    return box.exec(command(stage, [stage.home, Path.home()], public=True))


def findings(text: str) -> dict:
    """What the program said of its attempts, by their names. It may say anything; what is no finding is left out."""
    found = {}
    for line in text.splitlines():
        try:
            finding = json.loads(line)
            found[finding["attempt"]] = {key: finding[key] for key in ("succeeded", "error", "seen")}
        except (ValueError, KeyError, TypeError):
            continue
    return found


def seen_from_host(stage: Stage, result: Result) -> list[str]:
    """The program's word is not all: what the host saw of its attempts, and whether it did its work."""
    problems = [f"{name} in the caller's folder has changed" for name in stage.changed(stage.inside)]
    problems += [f"a {what} from the box arrived" for what in stage.heard_within(0.2, {CONNECTION, QUERY})]
    if stage.key.encode() in result.stdout + result.stderr:
        problems.append("the key is in what the box wrote")
    if not result.ok:
        problems.append(f"the program did not finish: {result.exit}")
    return problems


def measure() -> tuple[list[float], list[float]]:
    """Milliseconds until a fresh box is let go, and until its command and the box have ended."""
    ready, whole = [], []
    for _ in range(FRESH_BOXES):
        began = perf_counter()
        times = run(["/bin/true"]).times_us
        whole.append((perf_counter() - began) * 1e3)
        ready.append((times["create"] + times["ready"]) / 1e3)
    return ready, whole


def present(console: show.Console, result: Result, rows: list[Row], measured: Evidence) -> None:
    show.title(console, "The work of an untrusted program, done in a box")
    show.useful(console, result)
    show.title(console, "What else it tried: first outside, as a control, and then in the box")
    show.attempts(console, rows)
    show.title(console, "What was asked for, and what this host gave")
    show.clauses(console, result)
    show.title(console, f"Level: {result.level.asked} asked for, {measured.awarded} measured")
    show.evidence(console, measured)


def conclude(console: show.Console, problems: list[str], rows: list[Row], measured: Evidence) -> int:
    if problems:
        show.title(console, "NOT AS IT SHOULD BE")
        for problem in problems:
            console.print(f"  {problem}", style="red")
        return 1
    show.title(console, f"{measured.awarded}: {len(rows)} attempts denied in the box, and the work was done.")
    console.print("The host saw no connection, no query, no changed file, and the key in no output.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
