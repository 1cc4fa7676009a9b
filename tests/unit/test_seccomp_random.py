"""The compiler against the reference, on random profiles and calls next to their conditions."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seccomp_cases import calls_near, expected, profiles, returned

from immure.errors import ProfileError
from immure.policy.seccomp import compile_filter, disassemble, parse_profile


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_the_program_is_the_reference(data: st.DataObject) -> None:
    profile = data.draw(profiles())
    program = compile_filter(profile)
    for _ in range(12):
        call = data.draw(calls_near(profile))
        assert returned(program, call) == expected(profile, call)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_also_where_words_are_the_other_way_round(data: st.DataObject) -> None:
    profile = data.draw(profiles())
    program = compile_filter(profile, arch="s390x")
    call = data.draw(calls_near(profile, ("s390x", "s390")))
    assert returned(program, call) == expected(profile, call, arch="s390x")


@settings(max_examples=100, deadline=None)
@given(profiles())
def test_programs_are_reproducible_and_can_be_shown(profile: object) -> None:
    program = compile_filter(profile)  # type: ignore[arg-type]
    assert program.to_bytes() == compile_filter(profile).to_bytes()  # type: ignore[arg-type]
    assert len(disassemble(program.instructions).splitlines()) == len(program.instructions)


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_no_text_makes_the_parser_fail_otherwise(text: bytes | str) -> None:
    with suppress(ProfileError):
        parse_profile(text)
