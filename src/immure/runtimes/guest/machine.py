"""A box in a virtual machine, whoever runs that."""

from __future__ import annotations

from errno import ENODEV, EOPNOTSUPP

from immure.errors import ProtectionUnavailable, RuntimeUnavailable, SetupFailed
from immure.plan.machine import OUTER_USER, OUTSIDE
from immure.policy.landlock import LEAST_ABI
from immure.runtimes.guest.carried import CarriedBox
from immure.runtimes.guest.vmm import carriers


class MachineBox(CarriedBox):
    """A box that a VMM carries."""

    outside, carrier_user = OUTSIDE, OUTER_USER

    def ready(self) -> dict[str, bytes]:
        """As any carried box's. Raises ProtectionUnavailable and RuntimeUnavailable, too, for what its kernel must have
        and has not.
        """
        try:
            return super().ready()
        except SetupFailed as error:
            if (error.step, error.errno) == ("disk", ENODEV):
                raise RuntimeUnavailable(
                    "the machine can't have a disk of its own",
                    need="ext4 in its kernel, which disk_mib takes",
                    have=f"{self.launch.programs[1][0]}: {error.message}",
                    hint="name a kernel that has it by IMMURE_KERNEL, or leave disk_mib out",
                ) from error
            if (error.step, error.errno) != ("landlock", EOPNOTSUPP):
                raise
            raise ProtectionUnavailable(
                "files.landlock",
                need=f"Landlock ABI {LEAST_ABI} (Linux 6.2) in the machine's kernel",
                have=f"{self.launch.programs[1][0]}: {error.message}",
                hint="name a kernel that has it by IMMURE_KERNEL, or leave protections.landlock out",
            ) from error

    def seen_out_here(self) -> dict[str, bytes]:
        """What runs in the outer box."""
        return carriers(self.pid)
