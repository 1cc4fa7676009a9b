"""Processes, threads, signals and terminals."""

from __future__ import annotations

import immure
from mustwork.boxes import in_box, python, shell


def test_fork_and_wait() -> None:
    python(
        """
        import os
        children = [os.fork() or os._exit(7) for _ in range(20)]
        assert {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children} == {7}
        """
    )


def test_sixty_four_threads() -> None:
    python(
        """
        import threading
        together = threading.Barrier(64)
        threads = [threading.Thread(target=together.wait) for _ in range(64)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        """
    )


def test_pool_of_processes() -> None:
    program = """
        import multiprocessing
        def square(number):
            return number * number
        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(4) as pool:
                    print(sum(pool.map(square, range(100))))
        """
    source = f"cat > pool.py <<'END'\n{program.replace(chr(10) + ' ' * 8, chr(10))}\nEND\npython3 pool.py"
    assert shell(source) == "328350\n" * 3


def test_pipelines_of_the_shell() -> None:
    assert shell("seq 1000 | grep 7 | sort -rn | head -1; cat <(echo substituted); x=$(echo nested); echo $x") == (
        "997\nsubstituted\nnested\n"
    )


def test_subprocesses_of_every_make() -> None:
    python(
        """
        import asyncio, os, subprocess
        assert subprocess.run(["cat"], input=b"in", capture_output=True).stdout == b"in"
        assert subprocess.run(["sh", "-c", "exit 3"], start_new_session=True).returncode == 3
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
        assert os.system("true") == 0
        async def main():
            child = await asyncio.create_subprocess_exec("echo", "async", stdout=subprocess.PIPE)
            assert (await child.communicate())[0] == b"async\\n"
        asyncio.run(main())
        """
    )


def test_signals_are_handled() -> None:
    python(
        """
        import os, signal, time
        got = []
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
            signal.signal(number, lambda number, frame: got.append(number))
        os.kill(os.getpid(), signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(0.2)
        assert got == [signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM], got
        """
    )


def test_children_are_stopped_and_killed() -> None:
    python(
        """
        import os, signal, subprocess
        child = subprocess.Popen(["sleep", "60"])
        child.send_signal(signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
        signal.pidfd_send_signal(os.pidfd_open(child.pid), signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        """
    )


def test_own_processes_are_seen_and_traced() -> None:
    """A debugger works on what it started."""
    python(
        """
        import ctypes, os, signal, subprocess
        libc = ctypes.CDLL(None, use_errno=True)
        child = subprocess.Popen(["sleep", "60"])
        assert str(child.pid) in os.listdir("/proc")
        assert libc.ptrace(16, child.pid, 0, 0) == 0, ctypes.get_errno()
        assert os.WIFSTOPPED(os.waitpid(child.pid, 0)[1])
        assert open(f"/proc/{child.pid}/mem", "rb")
        child.kill()
        """
    )


def test_orphans_are_reaped() -> None:
    python(
        """
        import os, time
        if os.fork() == 0:
            for _ in range(5):
                if os.fork() == 0:
                    os._exit(0)
            os._exit(0)
        os.wait()
        time.sleep(0.3)
        states = [open(f"/proc/{pid}/stat").read().split(") ")[1][0] for pid in os.listdir("/proc") if pid.isdigit()]
        assert "Z" not in states, states
        """
    )


def test_exit_and_signal_are_told() -> None:
    assert immure.run(["/bin/sh", "-c", "exit 42"], level="L2").exit.code == 42
    killed = immure.run(["/bin/sh", "-c", "kill -SEGV $$"], level="L2").exit
    assert (killed.kind, killed.signal) == ("signaled", 11)


def test_terminals_are_made() -> None:
    """openpty, and a program that has the terminal as its own."""
    python(
        """
        import os, pty
        main, terminal = os.openpty()
        os.write(main, b"typed\\n")
        assert os.read(terminal, 100) == b"typed\\n"
        assert os.ttyname(terminal).startswith("/dev/pts/")
        pid, fd = pty.fork()
        if pid == 0:
            os.execv("/bin/sh", ["sh", "-c", "tty; stty size; test -w /dev/tty && echo own"])
        text = b""
        try:
            while chunk := os.read(fd, 1000):
                text += chunk
        except OSError:
            pass  # a terminal that is gone gives EIO
        assert text.startswith(b"/dev/pts/") and b"own" in text, text
        """
    )


def test_priorities_and_limits_go_down() -> None:
    assert in_box(["/bin/sh", "-c", "ulimit -n 100; nice -n 5 sh -c 'ulimit -n; nice'"]) == "100\n5\n"
