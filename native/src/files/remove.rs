//! Removing, without following a link: by descriptors, so that nothing can be swapped under it, and by few of them,
//! however deep folders are.

use super::{Step, Trouble, Work};
use crate::sys::{self, Sys};
use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub fn remove(path: &Path, recursive: bool) -> Work<()> {
    let found = fs::symlink_metadata(path).step("stat")?;
    if !found.is_dir() {
        return fs::remove_file(path).step("remove");
    }
    if recursive {
        empty(path).map_err(|errno| Trouble { errno, step: "remove" })?;
    }
    fs::remove_dir(path).step("remove")
}

/// So many folders stay open; what is above these is opened again, and its names read from the first on.
const MOST_OPEN: usize = 32;

/// A folder that was gone down from: what it is, and the name below.
struct Above {
    identity: (u64, u64),
    name: CString,
    open: Option<Folder>,
}

fn empty(path: &Path) -> Sys<()> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| libc::EINVAL)?;
    let mut here = Folder::open(libc::AT_FDCWD, &name)?;
    let mut above: Vec<Above> = Vec::new();
    loop {
        if let Some((name, below)) = here.first_folder()? {
            above.push(Above { identity: here.identity()?, name, open: Some(here) });
            if let Some(far) = above.len().checked_sub(MOST_OPEN) {
                above[far].open = None;
            }
            here = below;
        } else if let Some(last) = above.pop() {
            let parent = match last.open {
                Some(open) => open,
                None => Folder::open(here.fd(), c"..")?,
            };
            if parent.identity()? != last.identity {
                // It was moved elsewhere meanwhile.
                return Err(libc::ESTALE);
            }
            unless_gone(parent.unlink(&last.name, libc::AT_REMOVEDIR))?;
            here = parent;
        } else {
            return Ok(());
        }
    }
}

fn unless_gone(done: Sys<()>) -> Sys<()> {
    match done {
        Err(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// An open folder, and how far its names were read.
struct Folder(*mut libc::DIR);

impl Folder {
    fn open(at: RawFd, name: &CStr) -> Sys<Folder> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: a C string; the descriptor is new, and becomes the stream's, which closes it.
        unsafe {
            let fd = sys::check(libc::openat(at, name.as_ptr(), flags) as i64)? as RawFd;
            let stream = libc::fdopendir(fd);
            if stream.is_null() {
                let errno = sys::errno();
                libc::close(fd);
                return Err(errno);
            }
            Ok(Folder(stream))
        }
    }

    fn fd(&self) -> RawFd {
        // SAFETY: the stream is open.
        unsafe { libc::dirfd(self.0) }
    }

    fn identity(&self) -> Sys<(u64, u64)> {
        // SAFETY: zero is a valid value of every field, and it is valid for writing.
        unsafe {
            let mut found: libc::stat = std::mem::zeroed();
            sys::check(libc::fstat(self.fd(), &mut found) as i64)?;
            Ok((found.st_dev, found.st_ino))
        }
    }

    fn unlink(&self, name: &CStr, flags: i32) -> Sys<()> {
        // SAFETY: a C string.
        sys::check(unsafe { libc::unlinkat(self.fd(), name.as_ptr(), flags) } as i64).map(drop)
    }

    /// Removes what is in it up to the first folder, which it opens; none where there is nothing left.
    fn first_folder(&mut self) -> Sys<Option<(CString, Folder)>> {
        while let Some((name, kind)) = self.next()? {
            if kind != libc::DT_DIR {
                match self.unlink(&name, 0) {
                    Err(libc::EISDIR) => {}
                    other => {
                        unless_gone(other)?;
                        continue;
                    }
                }
            }
            match Folder::open(self.fd(), &name) {
                Ok(below) => return Ok(Some((name, below))),
                // A link, or something else by now.
                Err(libc::ELOOP | libc::ENOTDIR) => unless_gone(self.unlink(&name, 0))?,
                other => unless_gone(other.map(drop))?,
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Sys<Option<(CString, u8)>> {
        loop {
            // SAFETY: the stream is open, and what is given is valid until the next call.
            let (name, kind) = unsafe {
                *libc::__errno_location() = 0;
                let entry = libc::readdir64(self.0);
                if entry.is_null() {
                    return if sys::errno() == 0 { Ok(None) } else { Err(sys::errno()) };
                }
                (CStr::from_ptr((*entry).d_name.as_ptr()), (*entry).d_type)
            };
            if name != c"." && name != c".." {
                return Ok(Some((name.to_owned(), kind)));
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // SAFETY: open until now.
        unsafe { libc::closedir(self.0) };
    }
}
