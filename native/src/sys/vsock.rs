//! Sockets between a virtual machine and its host. vsock(7).

use super::{check, Sys};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const BACKLOG: i32 = 16;
const SIZE: u32 = mem::size_of::<libc::sockaddr_vm>() as u32;

/// One that listens at a port of this machine's. Below 1024 it takes CAP_NET_BIND_SERVICE.
pub fn listen(port: u32) -> Sys<OwnedFd> {
    // SAFETY: plain data, for which zeroes are a value.
    let mut own: libc::sockaddr_vm = unsafe { mem::zeroed() };
    own.svm_family = libc::AF_VSOCK as u16;
    own.svm_cid = libc::VMADDR_CID_ANY;
    own.svm_port = port;
    // SAFETY: no memory is passed but `own`, which is valid for its length; the descriptor is new.
    unsafe {
        let fd = check(libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) as i64)?;
        let made = OwnedFd::from_raw_fd(fd as RawFd);
        check(libc::bind(made.as_raw_fd(), (&own as *const libc::sockaddr_vm).cast(), SIZE) as i64)?;
        check(libc::listen(made.as_raw_fd(), BACKLOG) as i64)?;
        Ok(made)
    }
}

/// Waits for the host to connect. Whoever else does, from within, is sent away.
pub fn accept_host(listener: RawFd) -> Sys<OwnedFd> {
    loop {
        // SAFETY: plain data, for which zeroes are a value.
        let mut peer: libc::sockaddr_vm = unsafe { mem::zeroed() };
        let mut size = SIZE;
        // SAFETY: `peer` is valid for writing `size` bytes; the descriptor is new.
        let accepted = unsafe {
            check(libc::accept4(
                listener,
                (&mut peer as *mut libc::sockaddr_vm).cast(),
                &mut size,
                libc::SOCK_CLOEXEC,
            ) as i64)
            .map(|fd| OwnedFd::from_raw_fd(fd as RawFd))
        };
        match accepted {
            Ok(fd) if peer.svm_cid == libc::VMADDR_CID_HOST => return Ok(fd),
            // It has gone again meanwhile, or is none.
            Ok(_) | Err(libc::EINTR | libc::ECONNABORTED | libc::ECONNRESET) => {}
            Err(errno) => return Err(errno),
        }
    }
}
