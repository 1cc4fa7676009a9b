//! What the kernel says of a process that has passed the last stage, read from outside.

use crate::fault::{At, Outcome};
use crate::frame;
use crate::sys::{fd, trace};
use std::os::fd::{AsRawFd, RawFd};

const NAMESPACES: [&str; 7] = ["ns/user", "ns/mnt", "ns/pid", "ns/net", "ns/ipc", "ns/uts", "ns/cgroup"];

/// Named values for the engine to judge. What can't be read is `NAME.errno`.
pub fn read_back(pid: i32, proc_dir: RawFd, data: &mut Vec<u8>) -> Outcome<()> {
    let dir = fd::open_at(proc_dir, pid.to_string(), libc::O_PATH | libc::O_DIRECTORY, 0)
        .at("readback", "/proc")?;
    let mut buffer = [0u8; 8192];
    for name in ["status", "uid_map", "gid_map"] {
        put(data, name, fd::read_small_at(dir.as_raw_fd(), name, &mut buffer));
    }
    for name in NAMESPACES {
        let inode = fd::inode_of_link_at(dir.as_raw_fd(), name).map(u64::to_le_bytes);
        put(data, name, inode.as_ref().map(|bytes| &bytes[..]).map_err(|errno| *errno));
    }
    for index in 0.. {
        match trace::filter(pid, index) {
            // One past the last.
            Err(libc::ENOENT) => break,
            Err(errno) => {
                put(data, &format!("filter/{index}"), Err(errno));
                break;
            }
            Ok(program) => put(data, &format!("filter/{index}"), Ok(&program)),
        }
    }
    Ok(())
}

/// Whether a process is gone, or only waits to be reaped. The kernel refuses to trace such a one with EPERM.
pub fn has_ended(pid: Option<i32>, proc_dir: RawFd) -> bool {
    let mut buffer = [0u8; 4096];
    let Some(pid) = pid else {
        return true;
    };
    match fd::read_small_at(proc_dir, &format!("{pid}/stat"), &mut buffer) {
        // The state follows the name, which may hold anything, and its parenthesis.
        Ok(stat) => matches!(stat.rsplit(|&byte| byte == b')').next(), Some([b' ', b'Z' | b'X', ..])),
        Err(_) => true,
    }
}

/// The cgroups of a box's init, which everything in the box shares. Read while its witness goes on.
pub fn read_cgroups(pid: i32, proc_dir: RawFd) -> Vec<u8> {
    let mut data = Vec::new();
    let mut buffer = [0u8; 4096];
    put(&mut data, "cgroup", fd::read_small_at(proc_dir, &format!("{pid}/cgroup"), &mut buffer));
    data
}

fn put(data: &mut Vec<u8>, name: &str, value: Result<&[u8], i32>) {
    match value {
        Ok(value) => frame::put_item(data, name, value),
        Err(errno) => frame::put_item(data, &format!("{name}.errno"), &errno.to_le_bytes()),
    }
}
