//! File operations, carried out in a box as its commands are: in a process that has passed the last stage. Content comes
//! on standard input and goes to standard output; what failed is a line `ERRNO STEP` on standard error, and status 1.

mod archive;
mod change;
mod content;
mod entry;
mod remove;
mod watch;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What failed, as the caller is told.
pub struct Trouble {
    errno: i32,
    step: &'static str,
}

pub type Work<T> = Result<T, Trouble>;

pub trait Step<T> {
    fn step(self, step: &'static str) -> Work<T>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: &'static str) -> Work<T> {
        self.map_err(|error| Trouble { errno: error.raw_os_error().unwrap_or(libc::EIO), step })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.errno, self.step)
    }
}

fn trouble<T>(errno: i32, step: &'static str) -> Work<T> {
    Err(Trouble { errno, step })
}

/// Carries out `files OPERATION ARGUMENT…` and gives the exit status.
pub fn run(arguments: &[&[u8]]) -> i32 {
    match carry_out(arguments) {
        Ok(()) => 0,
        Err(fault) => {
            let _ = writeln!(io::stderr(), "{fault}");
            1
        }
    }
}

fn carry_out(arguments: &[&[u8]]) -> Work<()> {
    let Some((operation, rest)) = arguments.get(1..).and_then(<[_]>::split_first) else {
        return trouble(libc::EINVAL, "operation");
    };
    match (*operation, rest) {
        (b"read", [path, offset, length]) => content::read(as_path(path), number(offset)?, number(length)?),
        (b"write", [path, mode, flags]) => content::write(as_path(path), number(mode)? as u32, flags),
        (b"stat", [path, follow]) => entry::stat(as_path(path), *follow == b"1"),
        (b"list", [path]) => entry::list(as_path(path)),
        (b"mkdir", [path, mode, parents]) => {
            change::mkdir(as_path(path), number(mode)? as u32, *parents == b"1")
        }
        (b"remove", [path, recursive]) => remove::remove(as_path(path), *recursive == b"1"),
        (b"move", [from, to, replace]) => change::move_to(as_path(from), as_path(to), *replace == b"1"),
        (b"pack", [path]) => archive::pack(as_path(path)),
        (b"changes", [upper, lower, merged]) => {
            archive::pack_changes(as_path(upper), as_path(lower), as_path(merged))
        }
        (b"unpack", [path]) => archive::unpack(as_path(path)),
        (b"watch", [path, recursive]) => watch::watch(as_path(path), *recursive == b"1"),
        _ => trouble(libc::EINVAL, "operation"),
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn number(text: &[u8]) -> Work<u64> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or(Trouble { errno: libc::EINVAL, step: "number" })
}

/// What is gone by now is not there; anything else that is not known of an entry is an error, since it would be missing.
fn unless_gone<T>(known: io::Result<T>, step: &'static str) -> Work<Option<T>> {
    match known {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.step(step).map(Some),
    }
}

/// A standard descriptor as a file: no buffer, and no lock.
fn standard(number: i32) -> std::mem::ManuallyDrop<File> {
    // SAFETY: open for the whole of this process, and never closed by what is given back.
    std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(number) })
}

/// Opens a regular file, wherever the path leads, without waiting for anybody and without becoming a terminal's.
fn open_regular(path: &Path, options: &mut fs::OpenOptions, flags: i32) -> Work<(File, fs::Metadata)> {
    let file = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | flags).open(path).step("open")?;
    let found = file.metadata().step("stat")?;
    if found.is_dir() {
        return trouble(libc::EISDIR, "open");
    }
    if !found.is_file() {
        return trouble(libc::ENXIO, "kind");
    }
    Ok((file, found))
}
