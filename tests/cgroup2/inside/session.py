"""A user's login session, which belongs to root."""

from __future__ import annotations

from integration.command_line import CommandLine

from .refusals import check_all_are_refused, check_defaults_are_reported, check_processes_are_bounded_all_the_same


def test_what_is_written_is_refused(cli: CommandLine) -> None:
    check_all_are_refused(cli, "session-3.scope can't be written by this user")


def test_what_is_not_is_reported() -> None:
    check_defaults_are_reported()


def test_processes_are_bounded_all_the_same() -> None:
    check_processes_are_bounded_all_the_same()
