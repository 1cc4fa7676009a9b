"""The benchmark: a box of ours against a safe C floor, bubblewrap and bare processes, in one run.

`python -m bench --help`; the method is in README.md.
"""
