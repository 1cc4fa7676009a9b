"""The exception tree: what each error carries."""

from __future__ import annotations

import pickle

import pytest

from immure import errors
from immure.errors import (
    BoxError,
    BoxLost,
    ExecFailed,
    FileError,
    ImmureError,
    ProtectionUnavailable,
    SetupFailed,
    SpecError,
)

TREE = {
    "ImmureError": (Exception, "IMM-ERROR"),
    "SpecError": (ImmureError, "IMM-SPEC"),
    "ProfileError": (SpecError, "IMM-PROFILE"),
    "ProtectionUnavailable": (ImmureError, "IMM-PROTECTION"),
    "RuntimeUnavailable": (ImmureError, "IMM-RUNTIME"),
    "LevelNotReached": (ImmureError, "IMM-LEVEL"),
    "BoxError": (ImmureError, "IMM-BOX"),
    "SetupFailed": (BoxError, "IMM-SETUP"),
    "ExecFailed": (BoxError, "IMM-EXEC"),
    "FileError": (BoxError, "IMM-FILE"),
    "WrongState": (BoxError, "IMM-STATE"),
    "VmmRefused": (BoxError, "IMM-VMM"),
    "BoxLost": (BoxError, "IMM-LOST"),
    "ChannelError": (BoxLost, "IMM-CHANNEL"),
}


@pytest.mark.parametrize("name", TREE)
def test_the_tree(name: str) -> None:
    parent, code = TREE[name]
    one = getattr(errors, name)
    assert one.__bases__ == (parent,)
    assert one.code == code
    assert name in (errors.__doc__ or "")


def test_every_error_is_in_the_tree() -> None:
    found = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert found == set(TREE)
    assert len({code for _, code in TREE.values()}) == len(TREE)


def test_it_says_what_was_needed_what_was_there_and_what_to_do() -> None:
    error = ImmureError("no", need="a", have="b", hint="c")
    assert str(error) == "no; needed: a; have: b; to do: c"
    assert error.to_dict() == {"code": "IMM-ERROR", "message": "no", "need": "a", "have": "b", "hint": "c"}
    assert str(ImmureError("no")) == "no"


def test_a_spec_error_begins_with_its_path() -> None:
    error = SpecError("unknown key 'x'", path="$.spec.files")
    assert (error.path, error.message) == ("$.spec.files", "$.spec.files: unknown key 'x'")
    assert SpecError("x").path == "$"


def test_what_the_others_carry() -> None:
    protection = ProtectionUnavailable("landlock", need="a", have="b")
    assert (protection.protection, protection.message) == ("landlock", "landlock can't be enforced here")
    setup = SetupFailed("x", step="mount", errno=2)
    assert (setup.step, setup.errno) == ("mount", 2)
    assert (ExecFailed("x").exit_status, ExecFailed("x", exit_status=127).exit_status) == (126, 127)


@pytest.mark.parametrize(
    "error",
    [
        SpecError("x", path="$.spec", need="a"),
        ProtectionUnavailable("landlock", need="a", have="b"),
        SetupFailed("x", step="mount", errno=2),
        ExecFailed("x", exit_status=127, hint="c"),
        FileError("x", path="/tmp", errno=13),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_gets_to_another_process_as_it_is(error: ImmureError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other), other.args) == (type(error), str(error), (error.message,))
    assert vars(other) == vars(error)
