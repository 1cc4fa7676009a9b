//! Unix datagrams with descriptors: SOCK_SEQPACKET keeps message bounds and reports the peer's end.

use super::{check, Sys};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const LENGTH: u32 = std::mem::size_of::<libc::sockaddr_un>() as u32;
/// Room for the kernel's SCM_MAX_FD (253) descriptors and the credentials.
const CONTROL_BYTES: usize = 2048;

#[repr(align(8))]
struct Control([u8; CONTROL_BYTES]);

pub struct Message<'a> {
    pub data: &'a [u8],
    pub fds: Vec<OwnedFd>,
    /// The sender's pid in our pid namespace; only where SO_PASSCRED is set.
    pub sender: Option<i32>,
}

pub fn pair() -> Sys<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` is valid for writing, and both descriptors are new.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) as i64)?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// One that listens at a path, with nothing there before.
pub fn listen(path: &[u8], backlog: i32) -> Sys<OwnedFd> {
    let to = named(path)?;
    let made = unix(libc::SOCK_SEQPACKET)?;
    // SAFETY: no memory is passed but `to`, which is valid for its length.
    unsafe {
        check(libc::bind(made.as_raw_fd(), (&to as *const libc::sockaddr_un).cast(), LENGTH) as i64)?;
        check(libc::listen(made.as_raw_fd(), backlog) as i64)?;
    }
    Ok(made)
}

/// A stream to who listens at a path.
pub fn connect_unix(path: &[u8]) -> Sys<OwnedFd> {
    let to = named(path)?;
    let made = unix(libc::SOCK_STREAM)?;
    // SAFETY: `to` is valid for its length.
    check(
        unsafe { libc::connect(made.as_raw_fd(), (&to as *const libc::sockaddr_un).cast(), LENGTH) } as i64
    )?;
    Ok(made)
}

fn unix(kind: i32) -> Sys<OwnedFd> {
    // SAFETY: no memory is passed; the descriptor is new.
    check(unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) } as i64)
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// unix(7): a path has at most 107 bytes.
fn named(path: &[u8]) -> Sys<libc::sockaddr_un> {
    // SAFETY: plain data, for which zeroes are a value.
    let mut to: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    to.sun_family = libc::AF_UNIX as u16;
    // An empty one would be a name of the kernel's own choice, that anybody can connect to.
    if path.first().is_none_or(|&byte| byte == 0) {
        return Err(libc::EINVAL);
    }
    if path.len() >= to.sun_path.len() {
        return Err(libc::ENAMETOOLONG);
    }
    for (place, &byte) in to.sun_path.iter_mut().zip(path) {
        *place = byte as libc::c_char;
    }
    Ok(to)
}

/// Of IPv4.
pub fn ip(kind: i32, protocol: i32) -> Sys<OwnedFd> {
    // SAFETY: no memory is passed; the descriptor is new.
    check(unsafe { libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, protocol) } as i64)
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

pub fn connect(socket: RawFd, address: [u8; 4], port: u16) -> Sys<()> {
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address) },
        sin_zero: [0; 8],
    };
    let length = std::mem::size_of_val(&to) as u32;
    // SAFETY: `to` is valid for its length.
    check(unsafe { libc::connect(socket, (&to as *const libc::sockaddr_in).cast(), length) } as i64).map(drop)
}

/// Messages received here name their sender's pid.
pub fn pass_credentials(fd: RawFd) -> Sys<()> {
    let on: i32 = 1;
    // SAFETY: `on` outlives the call.
    check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_PASSCRED, (&on as *const i32).cast(), 4) }
        as i64)
    .map(drop)
}

pub fn send(fd: RawFd, data: &[u8], fds: &[RawFd]) -> Sys<()> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: data.as_ptr() as *mut _, iov_len: data.len() };
    // SAFETY: every pointer stays valid for the call; the control buffer holds what callers pass.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        if !fds.is_empty() {
            let length = std::mem::size_of_val(fds) as u32;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(length) as usize;
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(length) as usize;
            std::ptr::copy_nonoverlapping(fds.as_ptr(), libc::CMSG_DATA(first).cast(), fds.len());
        }
        loop {
            match check(libc::sendmsg(fd, &header, libc::MSG_NOSIGNAL) as i64) {
                Err(libc::EINTR) => {}
                other => return other.map(drop),
            }
        }
    }
}

/// Waits for one message. None at the end of the stream. A message longer than `buffer` is EMSGSIZE.
pub fn receive(fd: RawFd, buffer: &mut [u8]) -> Sys<Option<Message<'_>>> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: every pointer stays valid for the call.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES;
        let mut was_reset = false;
        let count = loop {
            match check(libc::recvmsg(fd, &mut header, libc::MSG_CMSG_CLOEXEC) as i64) {
                Err(libc::EINTR) => {}
                // A peer that ended with something of ours unread makes that known once, before what it had said.
                Err(libc::ECONNRESET) if !was_reset => was_reset = true,
                other => break other?,
            }
        };
        let (fds, sender) = ancillary(&header);
        if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return Err(libc::EMSGSIZE);
        }
        if count == 0 {
            return Ok(None);
        }
        Ok(Some(Message { data: &buffer[..count as usize], fds, sender }))
    }
}

/// # Safety
/// `header` comes from a successful recvmsg.
unsafe fn ancillary(header: &libc::msghdr) -> (Vec<OwnedFd>, Option<i32>) {
    let (mut fds, mut sender) = (Vec::new(), None);
    // SAFETY: the kernel has filled the control buffer, and the macros stay inside it.
    unsafe {
        let mut item = libc::CMSG_FIRSTHDR(header);
        while !item.is_null() {
            let (level, kind) = ((*item).cmsg_level, (*item).cmsg_type);
            let length = (*item).cmsg_len - libc::CMSG_LEN(0) as usize;
            if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                for index in 0..length / 4 {
                    let fd = *libc::CMSG_DATA(item).cast::<RawFd>().add(index);
                    fds.push(OwnedFd::from_raw_fd(fd));
                }
            } else if (level, kind) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) {
                sender = Some((*libc::CMSG_DATA(item).cast::<libc::ucred>()).pid);
            }
            item = libc::CMSG_NXTHDR(header, item);
        }
    }
    (fds, sender)
}
