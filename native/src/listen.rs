//! A socket for who connects from within this box, served by who asked for it: it goes out on standard output, which for
//! this is a socket. Its name is there until the other end of that is closed. What failed is a line `ERRNO STEP`.

use crate::fault::{At, Fault, Outcome};
use crate::sys::socket;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// As many as may wait: the one that is meant, and what takes its place by mistake.
const BACKLOG: i32 = 4;

/// Carries out `listen PATH` and gives the exit status.
pub fn run(arguments: &[&[u8]]) -> i32 {
    match listen(arguments) {
        Ok(()) => 0,
        Err(fault) => {
            eprintln!("{} {}", fault.errno, fault.step);
            1
        }
    }
}

fn listen(arguments: &[&[u8]]) -> Outcome<()> {
    let &[_, path] = arguments else {
        return Err(Fault::new("operation", "", libc::EINVAL));
    };
    // SAFETY: no memory is passed. Nobody else is to connect, not even for the moment before a chmod.
    unsafe { libc::umask(0o177) };
    let listening = socket::listen(path, BACKLOG).at("listen", "")?;
    let name = Named(path);
    socket::send(1, b".", &[listening.as_raw_fd()]).at("pass", "")?;
    drop(listening);
    // Nothing is ever said: this is the end.
    let ended = socket::receive(1, &mut [0; 8]).at("wait", "").map(drop);
    drop(name);
    ended
}

/// A name that goes with it.
struct Named<'a>(&'a [u8]);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(Path::new(OsStr::from_bytes(self.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_path_of_a_socket_is_refused() {
        let errno = |arguments: &[&[u8]]| listen(arguments).map_err(|fault| fault.errno);
        assert_eq!(errno(&[b"listen"]), Err(libc::EINVAL));
        assert_eq!(errno(&[b"listen", &[b'a'; 108]]), Err(libc::ENAMETOOLONG));
        assert_eq!(errno(&[b"listen", b""]), Err(libc::EINVAL));
        assert_eq!(errno(&[b"listen", b"/none/such"]), Err(libc::ENOENT));
    }
}
