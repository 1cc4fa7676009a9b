"""Attempts to leave a box, each with a control: the same program succeeds outside.

An attempt is a function in `attempts/`. `inside.py` runs one of them, by name, in a process of its own and prints
one line of JSON. `test_attempts.py` runs each of them in a box, where it must be denied by an error that the attempt
declares, and outside, on objects that the test made itself, where it must succeed.
"""
