//! What the kernel says of this process and its box.

use super::Item;
use crate::sys::{fd, process, security, Sys};
use std::os::fd::AsRawFd;

/// Of each item.
pub const MOST_BYTES: usize = 8 * 1024;

pub fn read() -> Vec<Item> {
    let mut items = Vec::new();
    let status = read_at_most("/proc/self/status", MOST_BYTES);
    let said = |name: &[u8]| {
        status.as_ref().is_ok_and(|text| text.split(|&byte| byte == b'\n').any(|line| line.starts_with(name)))
    };
    // Not every kernel has them in its status.
    if !said(b"NoNewPrivs:") {
        let set = process::prctl(libc::PR_GET_NO_NEW_PRIVS, 0);
        put(&mut items, "no_new_privs", set.map(|set| set.to_string().into()));
    }
    if !said(b"CapAmb:") {
        put(&mut items, "ambient", ambient().map(|set| format!("{set:016x}").into()));
    }
    put(&mut items, "status", status);
    put(&mut items, "uname", process::uname().map(|parts| parts.join(&0)));
    // Of the kernel that runs, whichever release it is.
    put(&mut items, "boot_id", read_at_most("/proc/sys/kernel/random/boot_id", MOST_BYTES));
    put(&mut items, "interfaces", read_at_most("/proc/self/net/dev", MOST_BYTES).map(|text| names(&text)));
    items
}

/// The ambient capabilities as a set of bits. prctl(2); EINVAL where the kernel has none. Those that are not inheritable
/// can't be (capabilities(7)), and where it is not said which are, all are asked for.
fn ambient() -> Sys<u64> {
    let asked = security::inheritable().unwrap_or(u64::MAX) | 1;
    let mut set = 0;
    for number in (0..64).filter(|number| asked >> number & 1 != 0) {
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
