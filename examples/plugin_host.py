"""Plugins of strangers, each in a box of its own, asked questions by lines of JSON while they run.

python examples/plugin_host.py
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from immure import PIPE, AsyncSandbox

PLUGINS = {
    "upper": "import json, sys\nfor line in sys.stdin: print(json.dumps(json.loads(line)['text'].upper()), flush=True)",
    "stuck": "import time\ntime.sleep(1000)",
    "liar": "print('no JSON', flush=True)\nimport time; time.sleep(1000)",
    "flood": "while True: print('\"' + 'x' * 100000, end='')",
    "gone": "import os\nos._exit(3)",
}
PATIENCE_S, LONGEST_ANSWER = 0.5, 4096


class Plugin:
    """One plugin under way. Whatever it does, a question is answered in time, or is an error."""

    def __init__(self, box: AsyncSandbox, process: Any) -> None:
        self._box, self._process = box, process

    @classmethod
    async def start(cls, source: str) -> Plugin:
        box = await AsyncSandbox()
        return cls(box, await box.start(["python3", "-I", "-c", source], stdin=PIPE))

    async def ask(self, **question: str) -> object:
        async with asyncio.timeout(PATIENCE_S):
            await self._process.stdin.write(json.dumps(question).encode() + b"\n")
            answer = await self._process.stdout.readline()
        if not answer.endswith(b"\n") or len(answer) > LONGEST_ANSWER:
            raise ValueError("no line of an answer's length")
        return json.loads(answer)

    async def close(self) -> None:
        await self._box.close()


async def main() -> None:
    for name, source in PLUGINS.items():
        plugin = await Plugin.start(source)
        try:
            print(f"{name:6} says {await plugin.ask(text='hello')!r}")
        except (TimeoutError, ValueError, BrokenPipeError) as error:
            print(f"{name:6} was ended: {type(error).__name__}")
        finally:
            await plugin.close()


if __name__ == "__main__":
    asyncio.run(main())
