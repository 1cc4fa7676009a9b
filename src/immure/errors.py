"""Every error that immure raises.

    ImmureError
    ├── SpecError                 what was written can't be read or makes no sense
    │   └── ProfileError          a seccomp profile can't be read or compiled
    ├── ProtectionUnavailable     this host can't apply a protection that is required
    ├── RuntimeUnavailable        no runtime on this host can carry the plan out
    ├── LevelNotReached           the measured level is below the one asked for
    └── BoxError                  a box could not be made, or was lost
        ├── SetupFailed           one step of making the box failed; names the step and its object
        ├── ExecFailed            a command could not be started (not found, not executable, bad working directory)
        ├── FileError             a file of a box can't be read, written or copied; names its path
        ├── WrongState            a call that the state of a machine forbids; it was not made
        ├── VmmRefused            a call that a virtual machine monitor has refused; has its words
        └── BoxLost               the box or its spawner ended under us
            └── ChannelError      what came out of a box is not what is spoken with one; the box is given up

Each carries what the `error` of every JSON document has: `code`, `message`, `need`, `have`, `hint`.
"""

from __future__ import annotations


class ImmureError(Exception):
    """Base of all errors. `need`, `have` and `hint` are None where they would say nothing."""

    code = "IMM-ERROR"

    def __init__(
        self, message: str, *, need: str | None = None, have: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.need = need
        self.have = have
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.message]
        if self.need:
            parts.append(f"needed: {self.need}")
        if self.have:
            parts.append(f"have: {self.have}")
        if self.hint:
            parts.append(f"to do: {self.hint}")
        return "; ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # As it is: the arguments of each kind differ, and an error has to get from one process to another.
        return _remade, (type(self), self.message), dict(vars(self))

    def to_dict(self) -> dict[str, str | None]:
        """The `error` object of every JSON document that immure prints."""
        return {
            "code": self.code,
            "message": self.message,
            "need": self.need,
            "have": self.have,
            "hint": self.hint,
        }


def _remade(kind: type[ImmureError], message: str) -> ImmureError:
    return kind.__new__(kind, message)


class SpecError(ImmureError):
    """Bad input. `path` is the place in the document, such as `$.spec.files.mounts[1].source`."""

    code = "IMM-SPEC"

    def __init__(
        self,
        message: str,
        *,
        path: str = "$",
        need: str | None = None,
        have: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{path}: {message}", need=need, have=have, hint=hint)
        self.path = path


class ProfileError(SpecError):
    """A seccomp profile that can't be read or compiled."""

    code = "IMM-PROFILE"


class ProtectionUnavailable(ImmureError):
    """A required protection that this host can't apply. `protection` is its name in the spec."""

    code = "IMM-PROTECTION"

    def __init__(
        self, protection: str, *, need: str, have: str, hint: str | None = None, message: str | None = None
    ) -> None:
        super().__init__(message or f"{protection} can't be enforced here", need=need, have=have, hint=hint)
        self.protection = protection


class RuntimeUnavailable(ImmureError):
    """No runtime on this host can carry the plan out."""

    code = "IMM-RUNTIME"


class LevelNotReached(ImmureError):
    """The box was refused: what was measured is below the level asked for."""

    code = "IMM-LEVEL"


class BoxError(ImmureError):
    """A box could not be made, or was lost."""

    code = "IMM-BOX"


class SetupFailed(BoxError):
    """One step of making the box failed. `step` names it and `errno` is the kernel's answer."""

    code = "IMM-SETUP"

    def __init__(
        self,
        message: str,
        *,
        step: str = "",
        errno: int = 0,
        need: str | None = None,
        have: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, need=need, have=have, hint=hint)
        self.step = step
        self.errno = errno


class ExecFailed(BoxError):
    """A command could not be started. `exit_status` is 127 (not found) or 126 (anything else)."""

    code = "IMM-EXEC"

    def __init__(
        self,
        message: str,
        *,
        exit_status: int = 126,
        need: str | None = None,
        have: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, need=need, have=have, hint=hint)
        self.exit_status = exit_status


class FileError(BoxError):
    """A file of a box can't be read, written or copied. `path` is the box's, `errno` the kernel's answer or 0."""

    code = "IMM-FILE"

    def __init__(
        self,
        message: str,
        *,
        path: str,
        errno: int = 0,
        need: str | None = None,
        have: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, need=need, have=have, hint=hint)
        self.path = path
        self.errno = errno


class WrongState(BoxError):
    """A call that the state of a machine forbids. It was not made, and nothing has changed."""

    code = "IMM-STATE"

    def __init__(self, call: str, *, need: str, have: str, hint: str | None = None) -> None:
        super().__init__(f"{call} is not possible now", need=need, have=have, hint=hint)
        self.call = call


class VmmRefused(BoxError):
    """A call that a virtual machine monitor has refused. `have` is what it said, `status` its HTTP status."""

    code = "IMM-VMM"

    def __init__(self, call: str, *, status: int, have: str, hint: str | None = None) -> None:
        super().__init__(f"{call} was refused by the virtual machine monitor", have=have, hint=hint)
        self.call = call
        self.status = status


class BoxLost(BoxError):
    """The box, or the spawner that owns it, ended under us."""

    code = "IMM-LOST"


class ChannelError(BoxLost):
    """What came out of a box breaks the protocol of its channel. `fault` is the kind of fault, see docs/channel.md."""

    code = "IMM-CHANNEL"

    def __init__(
        self, fault: str, *, need: str | None = None, have: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(f"the box broke the protocol of its channel: {fault}", need=need, have=have, hint=hint)
        self.fault = fault
