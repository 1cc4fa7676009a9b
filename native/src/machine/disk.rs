//! A disk of the machine's own, mounted once the box's root is sealed and has no node of it.

use super::wait_for;
use crate::fault::{At, Outcome};
use crate::sys::{fd, mount};
use std::os::fd::AsRawFd;

/// At an empty folder of the root. Where all devices are seen is gone again before any command can look.
pub fn mount(device: &str, place: &str, kind: &str, flags: u64, options: &str) -> Outcome<()> {
    let folder = libc::O_PATH | libc::O_DIRECTORY;
    let here = fd::open(".", folder).at("disk", ".")?;
    mount::mount_new("devtmpfs", place, 0, "").at("disk", place)?;
    let devices = fd::open(place, folder).at("disk", place)?;
    mount::detach(place).at("disk", place)?;
    wait_for(|| fd::open_at(devices.as_raw_fd(), device, libc::O_PATH, 0)).at("disk", device)?;
    // The kernel calls it what it was called here.
    fd::fchdir(devices.as_raw_fd()).at("disk", device)?;
    mount::mount_device(device, place, kind, flags, options).at("disk", device)?;
    fd::fchdir(here.as_raw_fd()).at("disk", ".")
}
