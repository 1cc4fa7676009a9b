//! Namespaces, and what is set inside a new one.

use super::{check, Sys};
use std::os::fd::RawFd;

pub fn unshare(flags: i32) -> Sys<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(flags) } as i64).map(drop)
}

pub fn enter(fd: RawFd, kind: i32) -> Sys<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::setns(fd, kind) } as i64).map(drop)
}

pub fn set_hostname(name: &str) -> Sys<()> {
    // SAFETY: `name` is valid for its length.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } as i64).map(drop)
}

/// Brings up `lo`, which a new network namespace has down.
pub fn loopback_up() -> Sys<()> {
    // SAFETY: no memory is passed.
    let socket =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) } as i64)?
            as RawFd;
    // SAFETY: zero is a valid value of every field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: `request` outlives the call.
    let result = check(unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &request) } as i64).map(drop);
    // SAFETY: ours, closed once.
    unsafe { libc::close(socket) };
    result
}
