//! What /proc says of processes. proc(5), stat.

use crate::fault::{Fault, Outcome};
use crate::sys::fd;
use std::fs;

pub struct Known {
    pub pid: i32,
    pub parent: i32,
    /// A letter.
    pub state: u8,
}

/// All of them, and whether none had gone before it was looked at.
pub fn all() -> Outcome<(Vec<Known>, bool)> {
    let unreadable = |errno| Fault::new("processes", "/proc", errno);
    let entries =
        fs::read_dir("/proc").map_err(|error| unreadable(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let numbers: Vec<i32> = entries.flatten().filter_map(number).collect();
    let found: Vec<Known> = numbers.iter().copied().filter_map(known).collect();
    // This process is there; where it is not, that is no /proc.
    if found.iter().all(|one| one.pid != std::process::id() as i32) {
        return Err(unreadable(libc::ENOENT));
    }
    let whole = found.len() == numbers.len();
    Ok((found, whole))
}

fn known(pid: i32) -> Option<Known> {
    let mut buffer = [0; 1024];
    let text = fd::read_small_at(libc::AT_FDCWD, &format!("/proc/{pid}/stat"), &mut buffer).ok()?;
    // The name, in parentheses, may hold anything.
    let after = text.iter().rposition(|&byte| byte == b')')?;
    let mut words = std::str::from_utf8(&text[after + 1..]).ok()?.split_ascii_whitespace();
    let state = *words.next()?.as_bytes().first()?;
    let parent = words.next()?.parse().ok()?;
    Some(Known { pid, parent, state })
}
