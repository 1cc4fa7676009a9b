"""Firecracker: one process for each machine, its API on a Unix socket."""
