//! What the kernel says of a process that has passed the last stage, read from outside.

use crate::fault::{At, Outcome};
use crate::frame;
use crate::sys::{fd, trace};
use std::os::fd::RawFd;

const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// Named values for the engine to judge. What can't be read is `NAME.errno`.
pub fn read_back(pid: i32, proc_dir: RawFd, data: &mut Vec<u8>) -> Outcome<()> {
    let dir = fd::open_at(proc_dir, &pid.to_string(), libc::O_PATH | libc::O_DIRECTORY, 0)
        .at("readback", "/proc")?;
    let dir = std::os::fd::AsRawFd::as_raw_fd(&dir);
    for name in ["status", "uid_map", "gid_map", "setgroups", "cgroup"] {
        put(data, name, fd::read_file_at(dir, name));
    }
    for name in NAMESPACES {
        let inode = fd::open_at(dir, &format!("ns/{name}"), libc::O_PATH, 0)
            .and_then(|link| fd::stat(std::os::fd::AsRawFd::as_raw_fd(&link)))
            .map(|found| found.st_ino.to_le_bytes().to_vec());
        put(data, &format!("ns/{name}"), inode);
    }
    for index in 0.. {
        match trace::filter(pid, index) {
            // One past the last.
            Err(libc::ENOENT) => break,
            Err(errno) => {
                put(data, &format!("filter/{index}"), Err(errno));
                break;
            }
            program => put(data, &format!("filter/{index}"), program),
        }
    }
    Ok(())
}

fn put(data: &mut Vec<u8>, name: &str, value: Result<Vec<u8>, i32>) {
    match value {
        Ok(value) => frame::put_item(data, name, &value),
        Err(errno) => frame::put_item(data, &format!("{name}.errno"), &errno.to_le_bytes()),
    }
}
