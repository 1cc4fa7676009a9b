"""Commands in a kept box: what `immure exec` and `immure run -d` promise of streams, signals, limits and results."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .command_line import CommandLine, shell
from .kept_boxes import Kept, kept_boxes
from .processes import eventually

pytestmark = pytest.mark.rootless


@pytest.fixture(scope="module")
def desk(shared_cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """A box for the tests of this file."""
    with kept_boxes(shared_cli.cache.parent, tmp_path_factory.mktemp("runtime")) as kept:
        kept.keep("desk")
        yield kept


@pytest.fixture(autouse=True)
def nothing_left(desk: Kept) -> Iterator[None]:
    """The box stays; no command does."""
    yield
    assert eventually(lambda: desk.boxes()["desk"]["processes"] == 0)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("desk", "--", *shell("exit 7")), 7),
        (("desk", "--", *shell("kill -9 $$")), 137),
        (("--timeout", "0.2", "desk", "--", "sleep", "60"), 124),
        (("--max-output", "0.001", "desk", "--", *shell("yes")), 125),
        (("desk", "--", "no-such-program"), 127),
        (("desk", "--", "/etc/passwd"), 126),
        (("-w", "/no/such/folder", "desk", "--", "true"), 126),
        (("desk",), 125),
        (("-u", "-5", "desk", "--", "true"), 125),
        (("--no-such-option", "desk", "--", "true"), 125),
        (("-d", "-i", "desk", "--", "true"), 125),
    ],
)
def test_the_exit_status_says_how_it_ended(desk: Kept, words: tuple[str, ...], status: int) -> None:
    assert desk.carry_out("exec", *words).returncode == status


def test_a_command_has_the_boxes_environment_and_its_own(desk: Kept) -> None:
    options = ("-e", "A=1", "-e", "B", "-w", "/usr")
    said = desk.ok("exec", *options, "desk", "--", *shell('echo "$A $B $HOME"; pwd'), env={"B": "2"})
    assert said == b"1 2 /tmp\n/usr\n"
    assert desk.ok("exec", "desk", "--", *shell('echo "$A$B"')) == b"\n", "the next has none of it"


def test_standard_input_is_connected_where_it_is_asked_for(desk: Kept) -> None:
    assert desk.ok("exec", "-i", "desk", "--", "cat", input=b"typed") == b"typed"
    assert desk.ok("exec", "desk", "--", "cat", input=b"typed") == b""


def test_the_result_is_that_of_run(desk: Kept, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert desk.carry_out("exec", "--result", path, "desk", "--", *shell("exit 4")).returncode == 4
    result = json.loads(path.read_text())
    assert result["schema"] == "immure.result/v1"
    assert result["exit"] == {"kind": "exited", "code": 4, "signal": None}
    assert (result["name"], result["id"]) == ("desk", desk.boxes()["desk"]["id"])
    assert result["level"] == {"asked": "L2", "awarded": "L2"}
    assert desk.carry_out("exec", "--result", path, "nobody", "--", "true").returncode == 125
    result = json.loads(path.read_text())
    assert result["exit"]["kind"] == "refused"
    assert "nobody" in result["error"]["message"]


def test_signals_go_on_to_the_command(desk: Kept, tmp_path: Path) -> None:
    script = "trap 'echo got it; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        desk.words("exec", "desk", "--", *shell(script)), env=desk.env, stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        one.send_signal(signal.SIGINT)
        assert one.stdout.read() == b"got it\n"
    assert one.returncode == 9


def test_a_caller_that_is_killed_takes_its_command_along_and_not_the_box(desk: Kept) -> None:
    with subprocess.Popen(
        desk.words("exec", "desk", "--", *shell("sleep 60 & echo ready; wait")), env=desk.env, stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        assert desk.boxes()["desk"]["processes"] == 2, "the control"
        one.kill()
    assert eventually(lambda: desk.boxes()["desk"]["processes"] == 0)
    assert desk.ok("exec", "desk", "--", "echo", "here") == b"here\n"


def test_many_at_once(desk: Kept) -> None:
    several = [
        subprocess.Popen(desk.words("exec", "desk", "--", "echo", str(one)), env=desk.env, stdout=subprocess.PIPE)
        for one in range(10)
    ]
    assert [one.communicate(timeout=30)[0] for one in several] == [b"%d\n" % one for one in range(10)]


def test_a_terminal_of_its_own(desk: Kept) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        desk.words("exec", "-it", "desk", "--", *shell("tty; stty -echo; read line; echo got $line")),
        env=desk.env, stdin=theirs, stdout=theirs, stderr=theirs,
    ) as one:  # fmt: skip
        os.close(theirs)
        os.write(ours, b"typed\n")
        shown = b""
        while b"got typed" not in shown:
            shown += os.read(ours, 4096)
    os.close(ours)
    assert one.returncode == 0


def test_a_paused_box_runs_nothing(desk: Kept) -> None:
    with subprocess.Popen(
        desk.words("exec", "desk", "--", *shell("while :; do echo tick; sleep 0.01; done")),
        env=desk.env, stdout=subprocess.PIPE,
    ) as one:  # fmt: skip
        assert one.stdout is not None
        assert one.stdout.readline() == b"tick\n"
        assert desk.ok("pause", "desk") == b""
        assert desk.boxes()["desk"]["state"] == "paused"
        ended = desk.carry_out("exec", "desk", "--", "true")
        assert ended.returncode == 125
        assert b"paused" in ended.stderr
        assert desk.ok("resume", "desk") == b""
        assert desk.boxes()["desk"]["state"] == "ready"
        one.kill()


def test_stats_are_of_the_box(desk: Kept) -> None:
    with subprocess.Popen(
        desk.words("exec", "desk", "--", *shell("echo ready; sleep 60")), env=desk.env, stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        one.stdout.readline()
        stats = json.loads(desk.ok("stats", "--json", "desk"))
        assert stats["processes"] == 2
        assert stats["resident_bytes"] > 0
        assert b"processes       2\n" in desk.ok("stats", "desk")
        one.kill()


class TestDetached:
    def test_the_command_goes_on_and_its_output_is_in_the_log(self, desk: Kept) -> None:
        script = "echo one; until [ -e /tmp/go ]; do sleep 0.02; done; echo two >&2; exit 5"
        number = desk.ok("exec", "-d", "desk", "--", *shell(script)).decode().strip()
        assert desk.boxes()["desk"]["command"]["state"] == "running"
        desk.ok("exec", "desk", "--", "touch", "/tmp/go")
        assert eventually(lambda: desk.boxes()["desk"]["command"]["state"] == "exited")
        assert desk.boxes()["desk"]["command"]["code"] == 5
        assert desk.ok("logs", "--command", number, "desk") == b"one\ntwo\n"
        assert desk.ok("logs", "--command", number, "--tail", "1", "desk") == b"two\n"
        entries = [json.loads(line) for line in desk.ok("logs", "--json", "--command", number, "desk").splitlines()]
        assert [one["stream"] for one in entries] == ["started", "stdout", "stderr", "ended"]
        assert entries[-1]["text"] == "exited 5"

    def test_a_follower_sees_what_comes_until_the_box_ends(self, desk: Kept) -> None:
        assert (
            desk.ok("run", "-d", "--name", "ticker", "--", *shell("while :; do echo tick; sleep 0.05; done"))
            == b"ticker\n"
        )
        with subprocess.Popen(desk.words("logs", "-f", "ticker"), env=desk.env, stdout=subprocess.PIPE) as one:
            assert one.stdout is not None
            for _ in range(5):
                assert one.stdout.readline() == b"tick\n"
            desk.ok("kill", "ticker")
            assert set(one.stdout.read().split()) <= {b"tick"}
        assert one.returncode == 0

    def test_a_box_whose_command_can_not_be_started_is_not_kept(self, desk: Kept) -> None:
        for words, status in ((("no-such-program",), 127), (("true",), 0)):
            ended = desk.run("-d", "--name", "brief", "--", *words)
            assert ended.returncode == status, ended.stderr
            assert ("brief" in desk.boxes()) == (status == 0)
        desk.ok("kill", "brief")

    def test_one_that_can_not_be_started_is_told(self, desk: Kept) -> None:
        ended = desk.carry_out("exec", "-d", "desk", "--", "no-such-program")
        assert ended.returncode == 127
        assert b"no-such-program" in ended.stderr

    def test_a_flood_is_bounded_and_what_is_lost_is_told(self, desk: Kept) -> None:
        script = "head -c 9000000 /dev/zero | tr '\\0' x; echo; echo last"
        number = desk.ok("exec", "-d", "desk", "--", *shell(script)).decode().strip()
        assert eventually(lambda: desk.boxes()["desk"]["command"]["state"] == "exited", within=20)
        ended = desk.carry_out("logs", "--command", number, "desk")
        assert ended.stdout.endswith(b"x\nlast\n")
        assert 1_000_000 < len(ended.stdout) < 5_000_000
        assert b"bytes are kept no more" in ended.stderr


class TestCopies:
    def test_a_file_there_and_back(self, desk: Kept, tmp_path: Path) -> None:
        (tmp_path / "one").write_bytes(b"\0content\n")
        desk.ok("cp", tmp_path / "one", "desk:/tmp/two")
        desk.ok("cp", tmp_path / "one", "desk:/tmp")
        assert desk.ok("exec", "desk", "--", "cat", "/tmp/one", "/tmp/two") == b"\0content\n" * 2
        desk.ok("cp", "desk:/tmp/two", tmp_path / "back")
        desk.ok("cp", "desk:two", tmp_path)
        assert (tmp_path / "back").read_bytes() == (tmp_path / "two").read_bytes() == b"\0content\n"

    def test_a_stream_there_and_back(self, desk: Kept) -> None:
        desk.ok("cp", "-", "desk:/tmp/stream", input=b"x" * 100_000)
        assert desk.ok("cp", "desk:/tmp/stream", "-") == b"x" * 100_000

    def test_a_folder_there_and_back(self, desk: Kept, tmp_path: Path) -> None:
        (tmp_path / "tree/below").mkdir(parents=True)
        (tmp_path / "tree/below/file").write_text("deep")
        (tmp_path / "tree/link").symlink_to("below/file")
        desk.ok("cp", tmp_path / "tree", "desk:/tmp/copied")
        assert desk.ok("exec", "desk", "--", "cat", "/tmp/copied/link") == b"deep"
        desk.ok("cp", "desk:/tmp/copied", tmp_path / "back")
        assert (tmp_path / "back/link").read_text() == "deep"

    def test_what_is_there_is_not_overwritten(self, desk: Kept, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("mine")
        desk.ok("cp", "-", "desk:/tmp/theirs", input=b"theirs")
        ended = desk.carry_out("cp", "desk:/tmp/theirs", tmp_path / "mine")
        assert ended.returncode == 2
        assert b"there already" in ended.stderr
        assert (tmp_path / "mine").read_text() == "mine"

    def test_a_link_that_leads_out_is_refused(self, desk: Kept, tmp_path: Path) -> None:
        desk.ok("exec", "desk", "--", *shell("mkdir /tmp/bad; ln -s ../../../etc/shadow /tmp/bad/link"))
        ended = desk.carry_out("cp", "desk:/tmp/bad", tmp_path / "bad")
        assert ended.returncode == 2
        assert b"link" in ended.stderr
        assert not (tmp_path / "bad").exists()

    @pytest.mark.parametrize(
        "words",
        [("a", "b"), ("desk:/a", "desk:/b"), ("-", "-"), ("desk:/no/such/file", "x"), ("/no/such/file", "desk:/tmp/x")],
    )
    def test_bad_words_are_told(self, desk: Kept, tmp_path: Path, words: tuple[str, str]) -> None:
        ended = desk.carry_out("cp", *words, cwd=tmp_path)
        assert ended.returncode == 2
        assert ended.stderr.startswith(b"immure: ")
        assert b"Traceback" not in ended.stderr

    def test_more_than_is_wanted_is_refused(self, desk: Kept, tmp_path: Path) -> None:
        desk.ok("exec", "desk", "--", *shell("head -c 3000000 /dev/zero > /tmp/large"))
        ended = desk.carry_out("cp", "--max-mib", "2", "desk:/tmp/large", tmp_path / "large")
        assert ended.returncode == 2
        assert not (tmp_path / "large").exists()
        desk.ok("cp", "desk:/tmp/large", tmp_path / "large")
