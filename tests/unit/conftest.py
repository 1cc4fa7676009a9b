"""Faults that are known: their tests must fail until they are mended, and then their line here goes."""

from __future__ import annotations

import pytest

KNOWN_FAULTS = {
    "test_hot_path.py::test_another_home": "a launch from ~ is cached without HOME",
    "test_plan_levels.py::test_l1_stays_possible_without_namespaces[facts2]": "is_bare does not look at own_id",
    "test_plan_mounts.py::test_one_place_by_two_names": "targets are compared before links are followed",
    "test_spec_keywords.py::test_short_form[mounts, in full, a path]": "to_builtins of a path is a TypeError",
    "test_spec_keywords.py::test_short_form[limits, as a model]": "an item is put into a model",
    "test_spec_keywords.py::test_a_value_of_another_type_is_a_spec_error[{'limits': 5, ": "an item is put into an int",
    "test_spec_keywords.py::test_a_value_of_another_type_is_a_spec_error[{'mounts': [{": "TypeError of to_builtins",
    "test_spec_refusals.py::test_a_bad_key_of_a_table_names_the_table[spec: {protections: {landlok": "no nearest key",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name, reason in KNOWN_FAULTS.items():
            if name in item.nodeid:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
