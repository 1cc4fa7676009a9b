//! A connection to a socket of this box for who asked for it: it goes out on standard output, which for this is a socket.
//! What failed is a line `ERRNO STEP`.

use crate::fault::{At, Fault, Outcome};
use crate::sys::socket;
use std::os::fd::AsRawFd;

/// Carries out `connect PATH` and gives the exit status.
pub fn run(arguments: &[&[u8]]) -> i32 {
    match connect(arguments) {
        Ok(()) => 0,
        Err(fault) => {
            eprintln!("{} {}", fault.errno, fault.step);
            1
        }
    }
}

fn connect(arguments: &[&[u8]]) -> Outcome<()> {
    let &[_, path] = arguments else {
        return Err(Fault::new("operation", "", libc::EINVAL));
    };
    let connected = socket::connect_unix(path).at("connect", "")?;
    socket::send(1, b".", &[connected.as_raw_fd()]).at("pass", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_path_of_a_socket_is_refused() {
        let errno = |arguments: &[&[u8]]| connect(arguments).map_err(|fault| fault.errno);
        assert_eq!(errno(&[b"connect"]), Err(libc::EINVAL));
        assert_eq!(errno(&[b"connect", &[b'a'; 108]]), Err(libc::ENAMETOOLONG));
        assert_eq!(errno(&[b"connect", b""]), Err(libc::EINVAL));
        assert_eq!(errno(&[b"connect", b"/none/such"]), Err(libc::ENOENT));
    }
}
