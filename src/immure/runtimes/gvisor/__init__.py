"""Boxes with a kernel in user space: gVisor in an outer box of ours, spoken to by a channel."""
