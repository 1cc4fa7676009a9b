//! What the kernel says of this process and its box.

use super::Item;
use crate::sys::{fd, process, Sys};
use std::os::fd::AsRawFd;

/// Names, files, and how much of each is told.
pub const FILES: [(&str, &str, usize); 5] = [
    ("status", "/proc/self/status", 8 * 1024),
    ("uid_map", "/proc/self/uid_map", 4 * 1024),
    ("gid_map", "/proc/self/gid_map", 4 * 1024),
    ("proc_version", "/proc/version", 2 * 1024),
    ("mountinfo", "/proc/self/mountinfo", 32 * 1024),
];
/// Of what is no file's content.
pub const MOST_BYTES: usize = 8 * 1024;

pub fn read() -> Vec<Item> {
    let mut items = Vec::new();
    for (name, path, most) in FILES {
        put(&mut items, name, read_at_most(path, most));
    }
    // Not every kernel has them in its status.
    put(
        &mut items,
        "no_new_privs",
        process::prctl(libc::PR_GET_NO_NEW_PRIVS, 0).map(|set| set.to_string().into()),
    );
    put(&mut items, "ambient", ambient().map(|set| format!("{set:016x}").into()));
    put(&mut items, "uname", process::uname().map(|parts| parts.join(&0)));
    put(&mut items, "interfaces", read_at_most("/proc/self/net/dev", MOST_BYTES).map(|text| names(&text)));
    items
}

/// The ambient capabilities as a set of bits. prctl(2); EINVAL where the kernel has none.
fn ambient() -> Sys<u64> {
    let mut set = 0;
    for number in 0..64 {
        match process::ambient(number) {
            Ok(raised) => set |= u64::from(raised) << number,
            Err(libc::EINVAL) if number > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(set)
}

fn put(items: &mut Vec<Item>, name: &str, value: Sys<Vec<u8>>) {
    items.push(match value {
        Ok(value) => (name.to_string(), value),
        Err(errno) => (format!("{name}.errno"), errno.to_le_bytes().to_vec()),
    });
}

/// The beginning of a file; where that is not all, its whole lines.
fn read_at_most(path: &str, most: usize) -> Sys<Vec<u8>> {
    let file = fd::open(path, libc::O_RDONLY)?;
    let mut content = vec![0; most];
    let mut length = 0;
    while length < most {
        match fd::read(file.as_raw_fd(), &mut content[length..])? {
            0 => {
                content.truncate(length);
                return Ok(content);
            }
            count => length += count,
        }
    }
    let end = content.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    content.truncate(end);
    Ok(content)
}

/// The interfaces in a table as /proc/net/dev has it, below two lines of headings.
fn names(table: &[u8]) -> Vec<u8> {
    let lines = table.split(|&byte| byte == b'\n').skip(2);
    // A name may have a colon; the numbers behind it have none.
    let named =
        lines.filter_map(|line| Some(line[..line.iter().rposition(|&byte| byte == b':')?].trim_ascii()));
    named.collect::<Vec<&[u8]>>().join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_named_as_they_stand() {
        let table = b"Inter-|\n face |bytes\n    lo:  1 2 3\n  eth0:1: 4 5\n\n";
        assert_eq!(names(table), b"lo\neth0:1");
        assert_eq!(names(b""), b"");
    }

    #[test]
    fn a_beginning_is_of_whole_lines() {
        assert_eq!(read_at_most("/proc/self/status", 40).unwrap().last(), Some(&b'\n'));
        assert_eq!(read_at_most("/proc/self/none", 40), Err(libc::ENOENT));
    }
}
