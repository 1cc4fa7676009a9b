//! Terminals: pty(7), ioctl_tty(2).

use super::{check, fd, Sys};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// A new one out of this mount namespace's devpts: our end and the other.
pub fn open() -> Sys<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let ours = fd::open("/dev/ptmx", flags)?;
    let (mut number, unlock): (libc::c_uint, libc::c_int) = (0, 0);
    // SAFETY: both outlive their calls, which read one number and write the other.
    unsafe {
        check(libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &unlock) as i64)?;
        check(libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTN, &mut number) as i64)?;
    }
    let theirs = fd::open(format!("/dev/pts/{number}"), flags)?;
    Ok((ours, theirs))
}

pub fn resize(fd: RawFd, columns: u16, rows: u16) -> Sys<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` outlives the call.
    check(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &size) } as i64).map(drop)
}

/// Tells those in the foreground of a new size, or who leads the session. gVisor (2024) does not, and does not say either
/// who is in the foreground; where the kernel has told them, a signal that is pending is not there twice.
pub fn tell_of_size(fd: RawFd, leader: Option<i32>) {
    // SAFETY: no memory is passed.
    let group = Some(unsafe { libc::tcgetpgrp(fd) }).filter(|&group| group > 1);
    if let Some(group) = group.or(leader) {
        let _ = super::process::kill(-group, libc::SIGWINCH);
    }
}
