"""Run code that you do not trust, at an isolation level that is measured, not promised.

Everything public is here and is imported when it is first used, so that `import immure` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from immure.engine.aio import AsyncSandbox as AsyncSandbox
    from immure.engine.aio_pool import AsyncPool as AsyncPool
    from immure.engine.keeper.aio import AsyncKeptSandbox as AsyncKeptSandbox
    from immure.engine.keeper.kept import KeptSandbox as KeptSandbox
    from immure.engine.local import run as run
    from immure.engine.pool import Pool as Pool
    from immure.engine.process import Process as Process
    from immure.engine.result import Result as Result
    from immure.engine.sandbox import Sandbox as Sandbox
    from immure.engine.snapshot import Snapshot as Snapshot
    from immure.engine.stdio import PIPE as PIPE
    from immure.errors import BoxError as BoxError
    from immure.errors import BoxLost as BoxLost
    from immure.errors import ChannelError as ChannelError
    from immure.errors import ExecFailed as ExecFailed
    from immure.errors import FileError as FileError
    from immure.errors import ImmureError as ImmureError
    from immure.errors import LevelNotReached as LevelNotReached
    from immure.errors import ProfileError as ProfileError
    from immure.errors import ProtectionUnavailable as ProtectionUnavailable
    from immure.errors import RuntimeUnavailable as RuntimeUnavailable
    from immure.errors import SetupFailed as SetupFailed
    from immure.errors import SpecError as SpecError
    from immure.errors import VmmRefused as VmmRefused
    from immure.errors import WrongState as WrongState
    from immure.runtimes.guest.migration import Migration as Migration
    from immure.spec.models import Level as Level
    from immure.spec.models import SandboxSpec as SandboxSpec

__version__ = "0.1.0"

_ERRORS = (
    "BoxError",
    "BoxLost",
    "ChannelError",
    "ExecFailed",
    "FileError",
    "ImmureError",
    "LevelNotReached",
    "ProfileError",
    "ProtectionUnavailable",
    "RuntimeUnavailable",
    "SetupFailed",
    "SpecError",
    "VmmRefused",
    "WrongState",
)
_HOMES = {
    "AsyncKeptSandbox": "immure.engine.keeper.aio",
    "AsyncPool": "immure.engine.aio_pool",
    "AsyncSandbox": "immure.engine.aio",
    "Pool": "immure.engine.pool",
    "PIPE": "immure.engine.stdio",
    "KeptSandbox": "immure.engine.keeper.kept",
    "Level": "immure.spec.models",
    "Migration": "immure.runtimes.guest.migration",
    "Process": "immure.engine.process",
    "Result": "immure.engine.result",
    "Sandbox": "immure.engine.sandbox",
    "SandboxSpec": "immure.spec.models",
    "Snapshot": "immure.engine.snapshot",
    "run": "immure.engine.local",
    **dict.fromkeys(_ERRORS, "immure.errors"),
}

__all__ = [
    "PIPE",
    "AsyncKeptSandbox",
    "AsyncPool",
    "AsyncSandbox",
    "BoxError",
    "BoxLost",
    "ChannelError",
    "ExecFailed",
    "FileError",
    "ImmureError",
    "KeptSandbox",
    "Level",
    "LevelNotReached",
    "Migration",
    "Pool",
    "Process",
    "ProfileError",
    "ProtectionUnavailable",
    "Result",
    "RuntimeUnavailable",
    "Sandbox",
    "SandboxSpec",
    "SetupFailed",
    "Snapshot",
    "SpecError",
    "VmmRefused",
    "WrongState",
    "run",
]


def __getattr__(name: str) -> object:
    """Imports a public name when it is first asked for (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'immure' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
