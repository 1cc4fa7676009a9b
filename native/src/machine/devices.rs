//! The devices that a box has: none of them leads out of it.

use crate::fault::{At, Outcome};
use crate::sys::{fd, mount};

/// Name, major and minor number. devices.txt of the kernel's documentation.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
const FOLDERS: [&str; 2] = ["pts", "shm"];
const FOR_ALL: u32 = 0o666;
const SPACE: &str = "size=64k,mode=0755";
const TERMINALS: &str = "newinstance,ptmxmode=0666,mode=0620,gid=5";
const FLAGS: u64 = libc::MS_NOSUID | libc::MS_NOEXEC;

/// At an empty folder, which nobody can change then.
pub fn make(place: &str) -> Outcome<()> {
    mount::mount_new("tmpfs", place, FLAGS, SPACE).at("devices", "/dev")?;
    let dir = fd::open(place, libc::O_PATH | libc::O_DIRECTORY).at("devices", "/dev")?;
    let dir = std::os::fd::AsRawFd::as_raw_fd(&dir);
    for (name, major, minor) in DEVICES {
        fd::mknod_at(dir, name, libc::S_IFCHR | FOR_ALL, major, minor).at("devices", name)?;
        // Whatever our umask is.
        fd::chmod_at(dir, name, FOR_ALL).at("devices", name)?;
    }
    for (name, target) in LINKS {
        fd::symlink_at(target, dir, name).at("devices", name)?;
    }
    for name in FOLDERS {
        fd::mkdir_at(dir, name, 0o755).at("devices", name)?;
    }
    mount::mount_new("devpts", &format!("{place}/pts"), FLAGS, TERMINALS).at("devices", "pts")?;
    mount::set_attributes_at_alone(place, mount::ATTR_RDONLY).at("devices", "/dev")
}
