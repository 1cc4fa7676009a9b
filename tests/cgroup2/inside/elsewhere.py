"""Moved out of the cgroup namespace that it is in."""

from __future__ import annotations

from integration.command_line import CommandLine

from .refusals import check_all_are_refused, check_defaults_are_reported, check_processes_are_bounded_all_the_same


def test_what_is_written_is_refused(cli: CommandLine) -> None:
    check_all_are_refused(cli, "this process is in /../root.service, outside the cgroups at /sys/fs/cgroup")


def test_what_is_not_is_reported() -> None:
    check_defaults_are_reported()


def test_processes_are_bounded_all_the_same() -> None:
    check_processes_are_bounded_all_the_same()
