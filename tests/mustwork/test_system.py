"""Devices, randomness, time, names and locales."""

from __future__ import annotations

import time

from mustwork.boxes import in_box, python, shell


def test_devices() -> None:
    shell(
        """
        echo x > /dev/null
        test "$(head -c 4 /dev/zero | tr '\\0' 0)" = 0000
        test "$(head -c 8 /dev/urandom | wc -c)" = 8
        test "$(head -c 8 /dev/random | wc -c)" = 8
        ! echo x 2> /dev/null > /dev/full
        """
    )


def test_standard_streams_have_names() -> None:
    """Scripts write to /dev/stderr, and `tee` is given it."""
    assert shell("echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin; echo too | tee /dev/fd/1") == (
        "out\ntoo\ntoo\n"
    )


def test_randomness() -> None:
    python(
        """
        import os, secrets, uuid
        assert len(os.getrandom(16)) == 16
        assert secrets.token_hex() != secrets.token_hex()
        uuid.uuid4()
        """
    )


def test_time() -> None:
    before = time.time()
    inside = float(python("import time; time.sleep(0.01); time.perf_counter(); print(time.time())"))
    assert before <= inside <= time.time()
    assert shell("TZ=Europe/Paris date -d @0 +%H; TZ=UTC date -d @0 +%H") == "01\n00\n"


def test_locale() -> None:
    python(
        """
        import locale, sys
        locale.setlocale(locale.LC_ALL, "")
        assert locale.getpreferredencoding() == "UTF-8"
        assert sys.getfilesystemencoding() == "utf-8"
        open("/tmp/größe-日本", "w").close()
        """
    )


def test_accounts() -> None:
    python(
        """
        import grp, os, pathlib, pwd
        assert pwd.getpwuid(os.getuid()).pw_uid == 1000
        assert grp.getgrgid(os.getgid()).gr_gid == 1000
        assert pathlib.Path.home() == pathlib.Path("/tmp")
        assert os.path.expanduser("~") == "/tmp"
        """
    )


def test_environment() -> None:
    assert in_box(["/usr/bin/printenv", "GIVEN"], env={"GIVEN": "value"}) == "value\n"


def test_own_view_of_the_system() -> None:
    python(
        """
        import os, pathlib, platform
        assert os.cpu_count() >= 1 and os.sched_getaffinity(0)
        assert platform.system() == "Linux" and platform.release()
        assert "MemTotal" in pathlib.Path("/proc/meminfo").read_text()
        assert pathlib.Path("/proc/self/exe").resolve().name.startswith("python3")
        os.statvfs("/tmp"), os.getloadavg(), os.times()
        """
    )


def test_certificates() -> None:
    """A program that may not talk to anyone still loads them."""
    python("import ssl; assert ssl.create_default_context().cert_store_stats()['x509_ca'] > 0")
