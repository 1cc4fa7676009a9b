"""What boots a machine: the archive of its first root, and the arguments of QEMU and of its kernel."""

from __future__ import annotations

import itertools
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immure.plan.initramfs import initramfs
from immure.plan.qemu_arguments import Machine, kernel_words, qemu_arguments

MACHINE = Machine(kernel="/k", initramfs="/i", image="/m")


def entries(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Mode, content and device by name, as the kernel reads them."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    place = 0
    while True:
        assert archive[place : place + 6] == b"070701"
        numbers = [int(archive[place + 6 + 8 * one : place + 14 + 8 * one], 16) for one in range(13)]
        size, name_size = numbers[6], numbers[11]
        begin = place + 110
        name = archive[begin : begin + name_size - 1].decode()
        assert archive[begin + name_size - 1] == 0
        begin = -(-(begin + name_size) // 4) * 4
        if name == "TRAILER!!!":
            assert begin == len(archive)
            return found
        found[name] = (numbers[1], archive[begin : begin + size], (numbers[9], numbers[10]))
        place = -(-(begin + size) // 4) * 4


@given(st.binary(max_size=300))
def test_the_first_root_holds_our_init_and_nothing_else(program: bytes) -> None:
    found = entries(initramfs(program))
    assert found.pop("init") == (stat.S_IFREG | 0o755, program, (0, 0))
    assert found.pop("dev/console") == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert {mode for mode, _, _ in found.values()} == {stat.S_IFDIR | 0o755}
    assert initramfs(program) == initramfs(program)


def test_folders_come_before_what_is_in_them() -> None:
    names = list(entries(initramfs(b"")))
    assert names.index("dev") < names.index("dev/console")


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
def test_the_machine_has_nothing_that_is_not_needed(accelerator: str) -> None:
    words = qemu_arguments(Machine(kernel="/k", initramfs="/i", image="/m", accelerator=accelerator))  # type: ignore[arg-type]
    options = [word for word in words if word.startswith("-")]
    assert {"-nodefaults", "-no-user-config", "-no-reboot", "-sandbox"} <= set(options)
    devices = [after for word, after in itertools.pairwise(words) if word == "-device"]
    assert [one.split(",")[0] for one in devices] == [
        *("virtio-blk-device", "virtio-serial-device", "virtserialport", "virtio-rng-device"),
    ]  # fmt: skip
    assert words[words.index("-accel") + 1] == accelerator
    assert words[words.index("-cpu") + 1] == {"tcg": "max,erms=off,fsrm=off", "kvm": "host"}[accelerator]
    assert "spawn=deny" in words[words.index("-sandbox") + 1]


def test_its_image_can_not_be_written() -> None:
    (drive,) = [word for word in qemu_arguments(MACHINE) if "node-name=image" in word]
    assert {"read-only=on", "file.read-only=on"} <= set(drive.split(","))


def test_a_comma_in_a_path_is_no_other_option() -> None:
    words = qemu_arguments(Machine(kernel="/k", initramfs="/i", image="/a,file.filename=/etc/shadow"))
    (drive,) = [word for word in words if "node-name=image" in word]
    assert "file.filename=/a,,file.filename=/etc/shadow," in drive


def test_a_processor_keeps_its_mitigations() -> None:
    assert "mitigations=off" in kernel_words(MACHINE).split()
    hardware = Machine(kernel="/k", initramfs="/i", image="/m", accelerator="kvm")
    assert "mitigations=off" not in kernel_words(hardware).split()


def test_our_init_is_told_where_things_are() -> None:
    words = dict(word.split("=", 1) for word in kernel_words(MACHINE).split() if word.startswith("IMMURE_"))
    assert words == {"IMMURE_CHANNEL": "port:immure", "IMMURE_DISK": "/dev/vda", "IMMURE_FORMAT": "erofs"}


def test_modules_come_with_it_in_their_order() -> None:
    found = entries(initramfs(b"program", [b"first", b"second"]))
    assert [found[f"modules/{name}"] for name in ("000", "001")] == [
        (stat.S_IFREG | 0o600, b"first", (0, 0)),
        (stat.S_IFREG | 0o600, b"second", (0, 0)),
    ]
    assert list(found).index("modules") < list(found).index("modules/000")


def test_a_kernel_with_modules_finds_devices_by_acpi_and_is_told_its_clock() -> None:
    plain = Machine(kernel="/k", initramfs="/i", image="/m")
    modular = Machine(kernel="/k", initramfs="/i", image="/m", modular=True, ticks_khz=2_500_000)
    assert "microvm,acpi=off,memory-backend=memory" in qemu_arguments(plain)
    assert "microvm,acpi=on,memory-backend=memory" in qemu_arguments(modular)
    assert "tsc_early_khz=2500000" in kernel_words(modular).split()
    assert "tsc_early_khz" not in kernel_words(plain)
    on_hardware = Machine(kernel="/k", initramfs="/i", image="/m", modular=True, ticks_khz=1, accelerator="kvm")
    assert "tsc_early_khz" not in kernel_words(on_hardware), "KVM tells it by itself"
