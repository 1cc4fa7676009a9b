//! Changes below a folder, as they come, by inotify(7). An event: `u32 what, u32 length, path`; what is made of the bits
//! of inotify. Ends when standard input does.

use super::{standard, trouble, Step, Trouble, Work};
use crate::sys::{self, fd};
use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io::Write;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fs, mem};

const MASK: u32 = libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_MODIFY
    | libc::IN_CLOSE_WRITE
    | libc::IN_ATTRIB
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF;
const HEAD: usize = mem::size_of::<libc::inotify_event>();
/// Folders that are watched at most; more is an error.
const MOST: usize = 8192;

struct Watcher {
    fd: RawFd,
    folders: HashMap<i32, PathBuf>,
    recursive: bool,
    /// Folders that can't be watched, of which nobody was told yet.
    closed: Vec<PathBuf>,
}

pub fn watch(path: &Path, recursive: bool) -> Work<()> {
    // SAFETY: no memory is passed.
    let made = sys::check(unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) } as i64);
    let fd = made.map_err(|errno| Trouble { errno, step: "watch" })? as RawFd;
    let mut watcher = Watcher { fd, folders: HashMap::new(), recursive, closed: Vec::new() };
    watcher.add(path)?;
    // From here on nothing is missed.
    tell(0, b"")?;
    watcher.tell_closed()?;
    loop {
        let mut ready = [fd, 0].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        fd::poll(&mut ready, -1).map_err(|errno| Trouble { errno, step: "poll" })?;
        if ready[0].revents != 0 {
            watcher.hear()?;
        }
        if ready[1].revents != 0 {
            return Ok(());
        }
    }
}

impl Watcher {
    fn add(&mut self, path: &Path) -> Work<()> {
        if self.folders.len() >= MOST {
            return trouble(libc::ENOSPC, "watch");
        }
        let name = CString::new(path.as_os_str().as_bytes()).or(trouble(libc::EINVAL, "watch"))?;
        // SAFETY: a C string.
        let added = sys::check(unsafe { libc::inotify_add_watch(self.fd, name.as_ptr(), MASK) } as i64);
        let number = added.map_err(|errno| Trouble { errno, step: "watch" })? as i32;
        self.folders.insert(number, path.to_path_buf());
        if !self.recursive {
            return Ok(());
        }
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add_below(&entry.path())?;
            }
        }
        Ok(())
    }

    /// One that is gone again is not watched.
    fn add_below(&mut self, path: &Path) -> Work<()> {
        match self.add(path) {
            Err(Trouble { errno: libc::ENOENT | libc::ENOTDIR, .. }) => Ok(()),
            Err(Trouble { errno: libc::EACCES, .. }) => {
                self.closed.push(path.to_path_buf());
                Ok(())
            }
            other => other,
        }
    }

    /// What is in a folder that can't be watched is missing from what is told.
    fn tell_closed(&mut self) -> Work<()> {
        let mut closed = std::mem::take(&mut self.closed).into_iter();
        closed.try_for_each(|path| tell(libc::IN_Q_OVERFLOW | libc::IN_ISDIR, path.as_os_str().as_bytes()))
    }

    fn hear(&mut self) -> Work<()> {
        let mut buffer = [0u8; 64 * 1024];
        // SAFETY: `buffer` is valid for writing.
        let count = unsafe { libc::read(self.fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        if count < 0 {
            return Ok(());
        }
        let mut rest = &buffer[..count as usize];
        while rest.len() >= HEAD {
            // SAFETY: the kernel has written a whole event there, at any alignment.
            let event: libc::inotify_event = unsafe { std::ptr::read_unaligned(rest.as_ptr().cast()) };
            let end = HEAD + event.len as usize;
            self.pass_on(&event, &rest[HEAD..end])?;
            rest = &rest[end..];
        }
        Ok(())
    }

    fn pass_on(&mut self, event: &libc::inotify_event, name: &[u8]) -> Work<()> {
        let name = name.split(|&byte| byte == 0).next().unwrap_or(b"");
        let Some(folder) = self.folders.get(&event.wd) else {
            return if event.mask & libc::IN_Q_OVERFLOW != 0 { tell(event.mask, b"") } else { Ok(()) };
        };
        let path = if name.is_empty() { folder.clone() } else { folder.join(OsStr::from_bytes(name)) };
        if event.mask & libc::IN_IGNORED != 0 {
            self.folders.remove(&event.wd);
            return Ok(());
        }
        let appeared = event.mask & (libc::IN_CREATE | libc::IN_MOVED_TO) != 0;
        let mut inside = Vec::new();
        if self.recursive && appeared && event.mask & libc::IN_ISDIR != 0 {
            // Before anybody is told of it, so that nothing in it is missed from then on.
            self.add_below(&path)?;
            collect(&path, &mut inside);
        }
        tell(event.mask, path.as_os_str().as_bytes())?;
        // What was there before it was watched. What came at that moment is told twice.
        inside.iter().try_for_each(|(mask, path)| tell(*mask, path.as_os_str().as_bytes()))?;
        self.tell_closed()
    }
}

/// Everything below a folder, as if it were made now.
fn collect(folder: &Path, found: &mut Vec<(u32, PathBuf)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        found.push((libc::IN_CREATE | if is_folder { libc::IN_ISDIR } else { 0 }, entry.path()));
        if is_folder {
            collect(&entry.path(), found);
        }
    }
}

fn tell(what: u32, path: &[u8]) -> Work<()> {
    let mut data = Vec::with_capacity(8 + path.len());
    data.extend(what.to_le_bytes());
    data.extend((path.len() as u32).to_le_bytes());
    data.extend(path);
    standard(1).write_all(&data).step("write")
}
