"""Programs of everyday work: a compiler, git, archives, a database."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mustwork.boxes import python, shell


def test_compiler_and_what_it_makes() -> None:
    source = '#include <stdio.h>\nint main(void) { printf("%d", 6 * 7); return 0; }'
    assert shell(f"echo '{source}' > a.c; gcc -O2 -o a a.c; ./a; gcc -static -o b a.c; ./b") == "4242"


def test_git(tmp_path: Path) -> None:
    """A repository in a mount, which the caller's git then takes for its own."""
    shell(
        """
        git init --quiet .
        git config user.name box; git config user.email box@example.org
        echo text > file
        git add file
        git commit --quiet --message first
        git checkout --quiet -b branch
        git clone --quiet . /tmp/clone
        git status --porcelain
        """,
        mounts=[(str(tmp_path), "/work", "rw")],
    )
    log = ["git", "-C", str(tmp_path), "log", "--format=%an %s"]
    assert subprocess.run(log, capture_output=True, text=True, check=True).stdout == "box first\n"
    assert (tmp_path / ".git/HEAD").stat().st_uid == os.geteuid()


def test_archives() -> None:
    shell("mkdir a; echo x > a/x; tar czf a.tgz a; rm -r a; tar xzf a.tgz; test -s a/x; gzip -t a.tgz")


def test_database() -> None:
    python(
        """
        import sqlite3
        base = sqlite3.connect("/tmp/base")
        base.execute("pragma journal_mode = wal")
        base.execute("create table t (x)")
        base.executemany("insert into t values (?)", [(x,) for x in range(100)])
        base.commit()
        assert base.execute("select sum(x) from t").fetchone() == (4950,)
        """
    )


def test_virtual_environment() -> None:
    assert shell("python3 -m venv --without-pip v; v/bin/python -c 'import sys; print(sys.prefix)'") == "/tmp/v\n"
