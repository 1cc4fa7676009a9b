"""Boxes in virtual machines that QEMU runs."""
