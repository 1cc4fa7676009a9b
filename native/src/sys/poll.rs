//! epoll: many descriptors, each with a token of the caller's.

use super::{check, Sys};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub struct Poller {
    fd: OwnedFd,
}

impl Poller {
    pub fn new() -> Sys<Poller> {
        // SAFETY: no memory is passed; the descriptor is new.
        check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } as i64)
            .map(|fd| Poller { fd: unsafe { OwnedFd::from_raw_fd(fd as RawFd) } })
    }

    /// Watches for input and for the other end's close. Closing the last copy of `fd` ends it.
    pub fn add(&self, fd: RawFd, token: u64) -> Sys<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: `event` outlives the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) } as i64)
            .map(drop)
    }

    pub fn remove(&self, fd: RawFd) {
        // SAFETY: the event may be null here. A descriptor that is not watched is of no interest.
        unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    }

    /// Waits, and gives the tokens of what is ready: none where `timeout_ms` has passed (-1 means never).
    pub fn wait(&self, tokens: &mut Vec<u64>, timeout_ms: i32) -> Sys<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        loop {
            // SAFETY: `events` is valid for writing.
            let found = check(unsafe {
                libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, timeout_ms)
            } as i64);
            match found {
                Err(libc::EINTR) => {}
                Err(errno) => return Err(errno),
                Ok(count) => {
                    tokens.clear();
                    tokens.extend(events[..count as usize].iter().map(|event| event.u64));
                    return Ok(());
                }
            }
        }
    }
}
