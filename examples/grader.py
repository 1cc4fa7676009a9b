"""Grades what students handed in: each answer in a box that nobody has used, and none takes the others down.

python examples/grader.py
"""

from __future__ import annotations

import json

from immure import Pool, Result

SUBMISSIONS = {
    "alice": "def fib(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a",
    "bob": "def fib(n):\n    return n",
    "carol": "def fib(n):\n    while True:\n        pass",
    "dave": "def fib(n):\n    print('x' * 10**9)",
    "erin": "import os\ndef fib(n):\n    os.fork() and os.wait()\n    return open('/grader/answers.json').read()",
    "mallory": "def fib(n):\n    open('/etc/shadow').read()",
}
CASES = {0: 0, 1: 1, 7: 13, 50: 12586269025}
HARNESS = """
import json, sys
source, cases = json.load(sys.stdin)
space = {}
exec(source, space)
json.dump([space["fib"](int(case)) for case in cases], sys.stdout)
"""


def main() -> None:
    # The answers stay here; the box gets the questions.
    with Pool(size=3, timeout_s=1, output_mib=1, memory_mib=128, protections={"memory": "best_effort"}) as pool:
        for name, source in SUBMISSIONS.items():
            with pool.claim() as box:
                questions = json.dumps([source, list(CASES)]).encode()
                result = box.exec(["python3", "-I", "-c", HARNESS], stdin=questions)
            print(f"{name:8} {points(result)}/{len(CASES)}  {reason(result)}")


def points(result: Result) -> int:
    """What a box says is an answer at best: it is compared, and never believed."""
    try:
        answers = json.loads(result.stdout)
    except ValueError:
        return 0
    if not result.ok or not isinstance(answers, list):
        return 0
    return sum(answer == wanted for answer, wanted in zip(answers, CASES.values(), strict=False))


def reason(result: Result) -> str:
    if result.exit.kind != "exited":
        return result.exit.kind
    last = result.stderr.text().strip().splitlines()[-1:]
    return ascii(last[0])[1:-1] if last else "ran to its end"


if __name__ == "__main__":
    main()
