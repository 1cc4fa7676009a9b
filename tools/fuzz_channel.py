"""Feeds both ends of a channel what chance makes of its frames: `python tools/fuzz_channel.py [--n N] [--seed S]`.

A case is a stream that is read, or a word that is heard. Streams are made of the corpus in tests/channel/frames by
changes of bytes, cut into pieces by chance: each is read or refused with ChannelError, and in any pieces alike. Words
are made by chance and said to a host at any moment: it hears or refuses them with ChannelError, refuses all ever after,
and never has more to keep than it had said it has room for. `native/src/channel/tests/fuzz.rs` does both to the guest;
`--side native` runs it alone. Exit status: 0, 1 for anything else (the case is printed), 2 for usage.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from immure.channel import frames
from immure.channel.frames import Frame, FromGuest, decode, encode
from immure.channel.host import Host
from immure.channel.limits import GUEST_FRAME_BYTES, HOST_FRAME_BYTES, MAGIC, STREAMS, VERSION, WINDOW_BYTES
from immure.channel.splitter import Splitter
from immure.errors import BoxLost, ChannelError

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "tests/channel/frames"
WORDS = [b"\0", b"\x7f", b"\x90", b"\x9f", b"\xc0", b"\xc4\x01", b"\xc6\xff\xff\xff\xff", b"\xcf", b"\xd3", b"\xdc",
         b"\xdd\xff\xff\xff\xff", b"\xff\xff\xff\xff"]  # fmt: skip
HELLO = frames.Hello(MAGIC, VERSION, HOST_FRAME_BYTES, STREAMS, WINDOW_BYTES)
OUTPUTS: tuple[frames.Output, ...] = (1, 2)


def main() -> int:
    """Runs it all, and gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000_000, help="cases for each side (10000000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", choices=("host", "native", "both"), default="both")
    options = parser.parse_args()
    status = 0
    if options.side != "native":
        status |= fuzz_host(options.n, options.seed)
    if options.side != "host":
        status |= fuzz_native(options.n, options.seed)
    return status


def fuzz_native(count: int, seed: int) -> int:
    """The same for the native program."""
    settings = {"IMMURE_FUZZ_CASES": str(count // 2), "IMMURE_FUZZ_SEED": str(seed)}
    command = ["cargo", "test", "--release", "--locked", "--quiet", "by_chance", "--", "--nocapture"]
    return subprocess.run(command, cwd=ROOT / "native", env={**os.environ, **settings}, check=False).returncode


def fuzz_host(count: int, seed: int) -> int:
    """Half of the cases are streams, half are words; shared among the processors."""
    workers = os.cpu_count() or 1
    share = count // (2 * workers) + 1
    total = [0, 0, 0]
    with ProcessPoolExecutor(workers) as pool:
        for found, fault in pool.map(fuzz, [(f"{seed}/{number}", share) for number in range(workers)]):
            total = [one + other for one, other in zip(total, found, strict=True)]
            if fault is not None:
                print(fault)
                return 1
    cases, heard, refused = total
    print(f"{cases} cases: {heard} frames heard, {refused} refused; no other fault")
    return 0


def fuzz(share: tuple[str, int]) -> tuple[tuple[int, int, int], str | None]:
    """How many cases there were, what was heard and refused in them, and the first one that did something else."""
    seed, count = share
    chance = random.Random(seed)
    seeds = corpus()
    heard = refused = cases = 0
    for part in (streams, conversations):
        for got, fault, why in part(chance, seeds, count):
            cases += 1
            heard += got
            refused += fault
            if why is not None:
                return (cases, heard, refused), f"{why} (seed {seed}, case {cases})"
    return (cases, heard, refused), None


#: How many frames were read, whether one was refused, and what else went wrong.
Outcome = tuple[int, bool, str | None]


def streams(chance: random.Random, seeds: list[bytes], count: int) -> Iterator[Outcome]:
    """Streams of changed frames."""
    for _ in range(count):
        data = chance.randbytes(chance.randrange(64)) if chance.random() < 0.1 else chance.choice(seeds)
        if chance.random() < 0.3:
            data += chance.choice(seeds)
        if chance.random() < 0.9:
            data = changed(chance, data)
        try:
            found, fault = read([data])
            if read(pieces(chance, data)) != (found, fault):
                yield 0, False, f"other pieces mean something else: {data!r}"
        except Exception as error:
            yield 0, False, f"{error!r} on {data!r}"
        else:
            yield len(found), fault is not None, None


def read(parts: list[bytes]) -> tuple[list[bytes], str | None]:
    """The frames of a stream, written again, and the fault that ends it."""
    splitter, found = Splitter(GUEST_FRAME_BYTES), []
    try:
        for part in parts:
            splitter.put(part)
            while (body := splitter.next()) is not None:
                frame = decode(body)
                again = encode(frame)
                assert decode(again[4:]) == frame
                found.append(again)
    except ChannelError as error:
        return found, error.fault
    return found, None


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """The same bytes, a few at a time."""
    found: list[bytes] = []
    while data:
        size = 1 + chance.randrange(20)
        found.append(data[:size])
        data = data[size:]
    return found


def changed(chance: random.Random, data: bytes) -> bytes:
    """Bytes put in, taken out, changed or doubled, up to four times."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.randrange(9))
        match chance.randrange(5):
            case 0:
                data = data[:at] + chance.choice(WORDS) + data[end:]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + data[at:end] + data[at:]
            case 3:
                data = data[:at]
            case _ if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
            case _:
                data += bytes([chance.getrandbits(8)])
    return data


def conversations(chance: random.Random, _seeds: list[bytes], count: int) -> Iterator[Outcome]:
    """Words by chance, to hosts at all moments, until each has refused one."""
    while count > 0:
        talk = Talk(chance)
        for _ in range(64):
            count -= 1
            try:
                heard, refused = talk.word()
            except Exception as error:
                yield 0, False, f"{error!r} after {talk.said!r}"
                return
            yield heard, refused, None
            if refused:
                break


class Talk:
    """One host, and what was said to it."""

    def __init__(self, chance: random.Random) -> None:
        self.said: list[Frame] = []
        self._chance = chance
        self._host = Host(lambda: b"x")
        #: What of each output nobody has taken yet.
        self._kept: dict[tuple[int, int], int] = {}
        for frame in (HELLO, frames.Configured(None, None))[: chance.choice((0, 1, 2, 2, 2, 2, 2))]:
            self._hear(frame)

    def word(self) -> tuple[int, bool]:
        """Says one more. How many were heard, and whether it was refused."""
        if self._host.is_ready:
            for _ in range(self._chance.randrange(3)):
                self._call()
        try:
            return self._hear(self._a_word()), False
        except ChannelError as error:
            self._stays(error)
            return 0, True

    def _hear(self, frame: Frame) -> int:
        self.said.append(frame)
        self._host.receive(encode(frame))
        heard = 0
        while (event := self._host.next_event()) is not None:
            heard += 1
            self._keep(event)
        return heard

    def _keep(self, event: FromGuest) -> None:
        if isinstance(event, frames.OutputData):
            place = event.stream, event.output
            self._kept[place] = self._kept.get(place, 0) + len(event.data)
            assert self._kept[place] <= WINDOW_BYTES

    def _stays(self, error: ChannelError) -> None:
        """Nothing makes it hear any more."""
        self._host.receive(encode(frames.Bye()))
        try:
            self._host.next_event()
        except BoxLost as again:
            assert again is error
        else:
            raise AssertionError("it goes on")

    def _call(self) -> None:
        host, stream = self._host, self._chance.randrange(20)
        calls: list[Callable[[], object]] = [
            *[lambda: host.exec(self._chance.randrange(32), b"x") if host.has_room_for_stream() else None] * 4,
            lambda: host.send_input(stream, bytes(min(host.input_room(stream), 70_000, 1 << 16))),
            lambda: host.end_input(stream),
            lambda: self._take(stream, self._chance.choice(OUTPUTS)),
            lambda: host.close_output(stream, self._chance.choice(OUTPUTS)),
            lambda: host.signal(stream, 9, group=True),
            lambda: host.resize(stream, 80, 24),
            host.pause,
            host.resume,
            host.ping,
        ]
        self._chance.choice(calls)()
        if self._chance.random() < 0.02:
            host.shut_down()
        host.data_to_send()

    def _take(self, stream: int, output: frames.Output) -> None:
        kept = self._kept.pop((stream, output), 0)
        if kept:
            self._host.add_room(stream, output, kept)

    def _a_word(self) -> Frame:
        """Mostly one that may be said: one that may not is the last."""
        streams = self._host._streams  # pyright: ignore[reportPrivateUsage]
        if not streams or self._chance.random() < 0.05:
            return self._any_word()
        stream = self._chance.choice(list(streams))
        state, size = streams[stream], self._chance.choice((1, 100, 1 << 16))
        words: list[Frame] = [frames.OutputData(stream, output, bytes(min(room, size)))
                              for output, room in state.outputs.items() if room] * 4  # fmt: skip
        words += [frames.OutputEnd(stream, output) for output in state.outputs]
        words += [frames.OutputDrained(stream, 1 if output == 1 else 2) for output in state.draining]
        if state.input_credit is not None:
            missing = WINDOW_BYTES - state.input_credit
            words += [frames.InputCredit(stream, missing)] * 3 if missing else []
            words.append(frames.InputClosed(stream))
        if state.tells and not (state.started or state.exited):
            words += [frames.Started(stream)] * 3
        if not state.exited:
            words.append(frames.Exited(stream, self._chance.randrange(1 << 16), 0, 0, 1, 2, sum(state.outputs)))
        return self._chance.choice(words) if words else self._any_word()

    def _any_word(self) -> Frame:
        chance = self._chance
        stream, output = chance.randrange(1, 20), chance.choice(OUTPUTS)
        words: list[Callable[[], Frame]] = [
            lambda: frames.Started(stream),
            lambda: frames.OutputData(stream, output, bytes(chance.choice((1, 100, 1 << 16)))),
            lambda: frames.OutputData(stream, output, b"x"),
            lambda: frames.OutputEnd(stream, output),
            lambda: frames.OutputDrained(stream, output),
            lambda: frames.InputCredit(stream, chance.choice((1, 65536, 2**32 - 1))),
            lambda: frames.InputClosed(stream),
            lambda: frames.Exited(stream, chance.randrange(1 << 16), 0, 0, 1, 2, 0),
            lambda: frames.Paused(chance.randrange(4)),
            lambda: frames.Pong(chance.randrange(4)),
            lambda: frames.Configured(None, 13),
            lambda: HELLO,
            frames.Bye,
        ]
        return chance.choice(words)()


def corpus() -> list[bytes]:
    """Every frame of the corpus; long ones have nothing to change but their length."""
    found: list[bytes] = []
    for file in ("valid.txt", "loose.txt", "invalid.txt"):
        for line in (CORPUS / file).read_text().splitlines():
            word = line.rpartition(": ")[2].split()[:1]
            if word and not line.startswith("#") and "*" not in line:
                found.append(bytes.fromhex(word[0]))
    return found


if __name__ == "__main__":
    sys.exit(main())
