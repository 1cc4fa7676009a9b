//! The stream of bytes to the host, which is never waited for.

use crate::channel::frame::{encode, Frame};
use crate::sys::{fd, Sys};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Output of commands is not read while as much waits to be sent.
const FULL_BYTES: usize = 256 * 1024;
/// Nor is the host heard while as much does: whoever sends and never reads gets no answers.
const FLOODED_BYTES: usize = 1 << 20;
pub const READ_BYTES: usize = 64 * 1024;
const PAGE_BYTES: usize = 4096;

pub struct Wire {
    pub input: OwnedFd,
    /// None where it goes out by the input's descriptor.
    pub output: Option<OwnedFd>,
    unsent: Vec<u8>,
    sent: usize,
}

pub fn raw(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}

impl Wire {
    pub fn new(input: OwnedFd, output: Option<OwnedFd>) -> Sys<Wire> {
        for one in [Some(&input), output.as_ref()].into_iter().flatten() {
            fd::set_nonblocking(raw(one))?;
        }
        Ok(Wire { input, output, unsent: Vec::new(), sent: 0 })
    }

    fn way_out(&self) -> RawFd {
        raw(self.output.as_ref().unwrap_or(&self.input))
    }

    pub fn send(&mut self, frame: &Frame) {
        encode(frame, &mut self.unsent);
    }

    pub fn waits_to_send(&self) -> bool {
        self.sent < self.unsent.len()
    }

    pub fn has_room(&self) -> bool {
        self.unsent.len() - self.sent < FULL_BYTES
    }

    pub fn hears(&self) -> bool {
        self.unsent.len() - self.sent < FLOODED_BYTES
    }

    /// As much as goes.
    pub fn flush(&mut self) -> Sys<()> {
        while self.waits_to_send() {
            match fd::write(self.way_out(), &self.unsent[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(libc::EAGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        if !self.waits_to_send() || self.sent >= FULL_BYTES {
            self.unsent.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// What has come, as much of it as `buffer` holds; nothing at the end of the stream, None where there is nothing
    /// yet. The port of a machine gives a page at a time, and waiting for each costs more than reading it.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Sys<Option<&'a [u8]>> {
        let mut length = 0;
        while length < buffer.len() {
            match fd::read(raw(&self.input), &mut buffer[length..]) {
                // After something else the end comes again.
                Ok(0) => return Ok(Some(&buffer[..length])),
                Ok(count) => {
                    length += count;
                    if count % PAGE_BYTES != 0 {
                        // There was no more, or it is there to be waited for.
                        break;
                    }
                }
                Err(libc::EAGAIN) => break,
                Err(errno) if length == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok((length > 0).then_some(&buffer[..length]))
    }

    /// Sends it after all else, unless the host does not take it.
    pub fn last_word(&mut self, frame: &Frame, timeout_ms: i32) {
        self.send(frame);
        while self.flush().is_ok() && self.waits_to_send() {
            let mut watch = [libc::pollfd { fd: self.way_out(), events: libc::POLLOUT, revents: 0 }];
            if fd::poll(&mut watch, timeout_ms) != Ok(1) {
                return;
            }
        }
    }
}
