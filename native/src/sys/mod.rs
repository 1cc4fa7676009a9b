//! One thin wrapper for each system call. Errors are errno values; nothing here decides anything.

pub mod fd;
#[cfg(target_arch = "x86_64")]
pub mod kvm;
pub mod mount;
pub mod namespace;
pub mod poll;
pub mod process;
pub mod security;
pub mod socket;
pub mod sync;
pub mod terminal;
pub mod trace;
pub mod vsock;

use std::ffi::CString;

pub type Sys<T> = Result<T, i32>;

pub fn errno() -> i32 {
    // SAFETY: always a valid pointer to this thread's errno.
    unsafe { *libc::__errno_location() }
}

/// A system call's result: -1 becomes the errno.
pub fn check(result: i64) -> Sys<i64> {
    if result == -1 {
        Err(errno())
    } else {
        Ok(result)
    }
}

/// A path as the kernel wants it. A NUL byte inside is EINVAL.
pub fn cstr(text: impl AsRef<[u8]>) -> Sys<CString> {
    CString::new(text.as_ref()).map_err(|_| libc::EINVAL)
}
