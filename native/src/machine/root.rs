//! The box's root: the image that the disk holds, below what every box has of its own.

use super::wait_for;
use crate::fault::{At, Outcome};
use crate::init;
use crate::sys::{fd, mount};
use std::os::fd::AsRawFd;

/// In the initramfs.
const IMAGE: &str = "/image";
const OWN: &str = "/own";
/// What stands on an image whatever it has there: an image's own link would lead its mounts elsewhere.
const POINTS: [&str; 8] =
    ["proc", "dev", "sys", "tmp", ".immure", ".immure/space", ".immure/empty", ".immure/mounts"];
/// What a command can open, as any box has it, and what no rule of Landlock's covers.
const SHOWN: [&str; 2] = [".immure/sentinel", ".immure/uncovered"];
/// For generated files, and for where mounts stand.
const SPACE: &str = "size=4m,mode=0755";
const LAYERS: &str = "lowerdir=/image,upperdir=/own/above,workdir=/own/work";
const IMAGE_FLAGS: u64 = libc::MS_RDONLY | libc::MS_NODEV | libc::MS_NOSUID;

/// Puts it together at `place`, where it can be written to until it is sealed.
pub fn make(disk: &str, kind: &str, place: &str) -> Outcome<()> {
    wait_for(|| fd::open(disk, libc::O_PATH)).at("image", disk)?;
    mount::mount_device(disk, IMAGE, kind, IMAGE_FLAGS, "").at("image", disk)?;
    mount::mount_new("tmpfs", OWN, libc::MS_NODEV | libc::MS_NOSUID, SPACE).at("image", OWN)?;
    let own = fd::open(OWN, libc::O_PATH | libc::O_DIRECTORY).at("image", OWN)?;
    for folder in ["work", "above"] {
        fd::mkdir_at(own.as_raw_fd(), folder, 0o755).at("image", folder)?;
    }
    for point in POINTS {
        fd::mkdir_at(own.as_raw_fd(), &format!("above/{point}"), 0o755).at("image", point)?;
    }
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    for file in SHOWN {
        fd::open_at(own.as_raw_fd(), format!("above/{file}"), flags, 0o444).at("image", file)?;
    }
    mount::mount_new("overlay", place, libc::MS_NODEV | libc::MS_NOSUID, LAYERS).at("image", place)
}

/// A second disk, with what the user's mounts are to show.
pub fn add_mounts(disk: &str, kind: &str, place: &str) -> Outcome<()> {
    wait_for(|| fd::open(disk, libc::O_PATH)).at("mounts", disk)?;
    let target = format!("{place}{}", init::root::GUEST_MOUNTS);
    mount::mount_device(disk, &target, kind, IMAGE_FLAGS, "").at("mounts", disk)
}

/// From now on nobody changes it. What is mounted in it stays as it is.
pub fn seal(place: &str) -> Outcome<()> {
    mount::set_attributes_at_alone(place, mount::ATTR_RDONLY).at("image", place)
}
