"""Hostile text is escaped before a terminal sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immure.cli.execute import complain, printable
from immure.errors import ImmureError, SpecError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("ünïcode ✓ 漢字", "ünïcode ✓ 漢字"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb", "a\\nb"),
        ("a\rb", "a\\rb"),
        ("a\tb", "a\\tb"),
        ("\x07", "\\x07"),
        ("\x00", "\\x00"),
        ("\x7f", "\\x7f"),
        # C1: one byte that begins a sequence, as ESC [ does.
        ("\x9b31m", "\\x9b31m"),
        # Text that runs the other way.
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\u2066", "\\u2066"),
        ("\u200b", "\\u200b"),
        ("\u2028", "\\u2028"),
        ("\ufeff", "\\ufeff"),
        # A byte that is no text.
        ("\udc9b", "\\udc9b"),
        ("", ""),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown == printable(shown)
    shown.encode()


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z"])))
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_a_complaint_is_escaped_in_all_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    complain(ImmureError("bad \x1b[2J\n", need="\x9b", have="\r", hint="\u202e"))
    assert capsys.readouterr().err == ("immure: bad \\x1b[2J\\n\n  needed: \\x9b\n  have: \\r\n  to do: \\u202e\n")


def test_a_complaint_says_no_more_than_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    complain(SpecError("wrong", path="$.spec"))
    assert capsys.readouterr().err == "immure: $.spec: wrong\n"
