"""The attempts, one subject a file. They need nothing but the standard library: they run in the box."""

SUBJECTS = (
    "devices",
    "files",
    "identity",
    "ipc",
    "kernel",
    "mounts",
    "namespaces",
    "network",
    "proc",
    "processes",
    "readonly",
    "setuid",
    "terminal",
)
