"""A step of CI: a checkout goes in, is tested and built with its log as it comes, and what was built comes out.

python examples/ci_step.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from immure import Sandbox

CHECKOUT = {
    "greet.py": "def greet(name):\n    return f'hello {name}'\n",
    "test_greet.py": "import unittest, greet\nclass Test(unittest.TestCase):\n    def test(self):\n"
    "        self.assertEqual(greet.greet('you'), 'hello you')\n",
    "build.sh": "#!/bin/sh\nset -e\nmkdir -p dist\npython3 -m zipapp . -m greet:greet -o dist/greet.pyz\n"
    "ln -s /etc/passwd dist/passwd 2>/dev/null || true\n",
}
STEPS = (
    ["python3", "-m", "unittest", "-q"],
    ["sh", "build.sh"],
    ["sh", "-c", "rm dist/passwd"],
    ["sh", "-c", "wget -q https://example.com/ || echo no network here"],
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder, "checkout")
        checkout.mkdir()
        for name, content in CHECKOUT.items():
            (checkout / name).write_text(content)
        with Sandbox(workdir="/tmp/src", timeout_s=30, disk_mib=64) as box:
            box.files.upload(checkout, "/tmp/src")
            for step in STEPS:
                print(f"$ {' '.join(step)}")
                with box.start(["sh", "-c", 'exec "$@" 2>&1', "sh", *step]) as process:
                    for line in process.stdout:
                        print(f"  {ascii(line.decode(errors='replace').rstrip())[1:-1]}", flush=True)
                    ended = process.wait().exit
                print(f"  [{ended.kind} {ended.code if ended.code is not None else ended.signal}]")
                if ended.code != 0:
                    return
            box.files.download("/tmp/src/dist", Path(folder, "dist"))
        print("built:", *(f"{one.name} ({one.stat().st_size} bytes)" for one in Path(folder, "dist").iterdir()))


if __name__ == "__main__":
    main()
