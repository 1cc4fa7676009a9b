"""Faults that are known: their tests must fail until they are mended, and then their line here goes."""

from __future__ import annotations

import pytest

KNOWN_FAULTS = {
    "test_cache.py::test_equal_parts_have_one_key": "marshal writes interning and references into the key",
    "test_cli_options.py::test_a_size_in_other_digits": "isdigit takes what int does not",
    "test_cli_options.py::test_variables_are_added": "-e takes the place of the document's env",
    "test_cli_options.py::test_protections_are_added": "--best-effort takes the place of the document's protections",
    "test_evidence_readback.py::test_a_readback_cut_anywhere": "short values are read as numbers",
    "test_evidence_readback.py::test_a_landlock_that_is_too_old": "any ABI counts as file control",
    "test_evidence_readback.py::test_an_empty_answer_of_the_sentinel": "an empty value is read as 0",
    "test_evidence_readback.py::test_a_status_that_ends_within": "the last character of a cut line is lost",
    "test_evidence_readback.py::test_more_filters_than_were_read": "Seccomp_filters is not compared where one was read",
    "test_evidence_readback.py::test_without_the_hosts_user_namespace": "an unknown host namespace counts as another",
    "test_frames.py::test_items_that_were_cut": "cut items are taken as they are",
    "test_frames.py::test_a_message_holds_the_longest_readback": "READY is cut at 32 KiB",
    "test_hot_path.py::test_a_document_that_changed": "the key of -f differs from run to run",
    "test_hot_path.py::test_a_source_that_became": "a cached launch is not given up for another kind of source",
    "test_plan_landlock.py::test_an_old_landlock_is_not_reported": "ABI 1 and 2 are reported as exact",
    "test_plan_launch.py::test_no_command_starts_in_a_file": "a file mount is taken as the working directory",
    "test_plan_levels.py::test_without_namespaces_capabilities": "capabilities are dropped without a word",
    "test_plan_levels.py::test_without_namespaces_each_mount": "mounts have no clause",
    "test_plan_levels.py::test_which_defaults_deny[SCMP_ACT_ALLOW": "an Action is compared with strings",
    "test_plan_levels.py::test_which_defaults_deny[SCMP_ACT_LOG": "an Action is compared with strings",
    "test_plan_levels.py::test_lo_is_brought_up": "lo is brought up where the box does not own the network",
    "test_plan_mounts.py::test_no_space_of_a_box": "a tmpfs without a size has the kernel's default",
    "test_plan_mounts.py::test_a_target_beneath_a_link": "a mount point is planned in the host's /usr",
    "test_prepare.py::test_a_source_with_a_nul": "ValueError of stat",
    "test_spec_keywords.py::test_a_value_of_another_type": "TypeError and ValueError of update, dict and iteration",
    "test_spec_loading.py::test_nesting_without_end_is_refused[a.json]": "RecursionError of msgspec",
    "test_spec_models.py::test_names_that_no_host_may_have[a\\n]": "$ matches before a last newline",
    "test_spec_refusals.py::test_a_bad_key_of_a_table": "the path of a bad key is not found in the message",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name, reason in KNOWN_FAULTS.items():
            if name in item.nodeid:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
