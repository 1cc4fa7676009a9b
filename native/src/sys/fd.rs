//! Files and descriptors.

use super::{check, cstr, Sys};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

fn own(fd: i64) -> OwnedFd {
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

pub fn open_at(dir: RawFd, path: impl AsRef<[u8]>, flags: i32, mode: u32) -> Sys<OwnedFd> {
    let path = cstr(path)?;
    // SAFETY: `path` is a C string that outlives the call.
    check(unsafe { libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC, mode) } as i64).map(own)
}

pub fn open(path: impl AsRef<[u8]>, flags: i32) -> Sys<OwnedFd> {
    open_at(libc::AT_FDCWD, path, flags, 0)
}

/// openat2(2), Linux 5.6: resolves with the given RESOLVE_ flags.
pub fn open_at2(dir: RawFd, path: &str, flags: i32, resolve: u64) -> Sys<OwnedFd> {
    let path = cstr(path)?;
    // SAFETY: zero is a valid value of every field.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = resolve;
    // SAFETY: `path` and `how` outlive the call.
    check(unsafe {
        libc::syscall(libc::SYS_openat2, dir, path.as_ptr(), &how, std::mem::size_of::<libc::open_how>())
    })
    .map(own)
}

/// A path to an open object, for calls that take no descriptor.
pub fn path_of(object: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", object.as_raw_fd())
}

pub fn mkdir_at(dir: RawFd, path: &str, mode: u32) -> Sys<()> {
    let path = cstr(path)?;
    // SAFETY: `path` outlives the call.
    check(unsafe { libc::mkdirat(dir, path.as_ptr(), mode) } as i64).map(drop)
}

pub fn symlink_at(target: &str, dir: RawFd, path: &str) -> Sys<()> {
    let (target, path) = (cstr(target)?, cstr(path)?);
    // SAFETY: both strings outlive the call.
    check(unsafe { libc::symlinkat(target.as_ptr(), dir, path.as_ptr()) } as i64).map(drop)
}

pub fn mknod_at(dir: RawFd, path: &str, mode: u32, major: u32, minor: u32) -> Sys<()> {
    let path = cstr(path)?;
    // SAFETY: `path` outlives the call.
    check(unsafe { libc::mknodat(dir, path.as_ptr(), mode, libc::makedev(major, minor)) } as i64).map(drop)
}

pub fn chmod_at(dir: RawFd, path: &str, mode: u32) -> Sys<()> {
    let path = cstr(path)?;
    // SAFETY: `path` outlives the call.
    check(unsafe { libc::fchmodat(dir, path.as_ptr(), mode, 0) } as i64).map(drop)
}

pub fn unlink_at(dir: RawFd, path: &str, flags: i32) -> Sys<()> {
    let path = cstr(path)?;
    // SAFETY: `path` outlives the call.
    check(unsafe { libc::unlinkat(dir, path.as_ptr(), flags) } as i64).map(drop)
}

pub fn stat(fd: RawFd) -> Sys<libc::stat> {
    // SAFETY: zero is a valid value of every field.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is valid for writing.
    check(unsafe { libc::fstat(fd, &mut found) } as i64)?;
    Ok(found)
}

pub fn write_all(fd: RawFd, mut data: &[u8]) -> Sys<()> {
    while !data.is_empty() {
        // SAFETY: `data` is valid for reading.
        match check(unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) } as i64) {
            Ok(count) => data = &data[count as usize..],
            Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// As much as there is room for.
pub fn write(fd: RawFd, data: &[u8]) -> Sys<usize> {
    loop {
        // SAFETY: `data` is valid for reading.
        match check(unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) } as i64) {
            Err(libc::EINTR) => {}
            other => return other.map(|count| count as usize),
        }
    }
}

pub fn read(fd: RawFd, buffer: &mut [u8]) -> Sys<usize> {
    loop {
        // SAFETY: `buffer` is valid for writing.
        match check(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) } as i64) {
            Err(libc::EINTR) => {}
            other => return other.map(|count| count as usize),
        }
    }
}

/// The whole of a file of /proc that fits into `buffer`: a read that does not fill it has reached the end.
pub fn read_small_at<'a>(dir: RawFd, path: &str, buffer: &'a mut [u8]) -> Sys<&'a [u8]> {
    let file = open_at(dir, path, libc::O_RDONLY, 0)?;
    let count = read(file.as_raw_fd(), buffer)?;
    if count == buffer.len() {
        return Err(libc::EMSGSIZE);
    }
    Ok(&buffer[..count])
}

/// The number in a link of /proc such as `net:[4026531840]`, which is the inode of a namespace. Following the link would
/// make that inode first.
pub fn inode_of_link_at(dir: RawFd, path: &str) -> Sys<u64> {
    let path = cstr(path)?;
    let mut buffer = [0u8; 64];
    // SAFETY: `path` outlives the call, and `buffer` is valid for writing.
    let count =
        check(
            unsafe { libc::readlinkat(dir, path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) } as i64
        )? as usize;
    let text = std::str::from_utf8(&buffer[..count]).map_err(|_| libc::EBADMSG)?;
    let number = text.split_once('[').and_then(|(_, rest)| rest.strip_suffix(']')).ok_or(libc::EBADMSG)?;
    number.parse().map_err(|_| libc::EBADMSG)
}

/// The whole content.
pub fn read_all(fd: RawFd) -> Sys<Vec<u8>> {
    let mut content = vec![0; 4096];
    let mut length = 0;
    loop {
        if length == content.len() {
            content.resize(length * 2, 0);
        }
        match read(fd, &mut content[length..])? {
            0 => break,
            count => length += count,
        }
    }
    content.truncate(length);
    Ok(content)
}

pub fn read_file_at(dir: RawFd, path: &str) -> Sys<Vec<u8>> {
    read_all(open_at(dir, path, libc::O_RDONLY, 0)?.as_raw_fd())
}

pub fn write_file_at(dir: RawFd, path: &str, data: &[u8]) -> Sys<()> {
    write_all(open_at(dir, path, libc::O_WRONLY, 0)?.as_raw_fd(), data)
}

pub fn fchdir(fd: RawFd) -> Sys<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchdir(fd) } as i64).map(drop)
}

/// close_range(2), Linux 5.9, of every descriptor that is not in `keep`.
pub fn close_all_but(keep: &mut [RawFd]) -> Sys<()> {
    keep.sort_unstable();
    let mut first: u32 = 0;
    for &fd in keep.iter() {
        let fd = fd as u32;
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    // No descriptor has a larger number, and gVisor (2024) takes none.
    close_range(first, i32::MAX as u32)
}

pub fn close_range(first: u32, last: u32) -> Sys<()> {
    // SAFETY: no memory is passed; owners of these descriptors never drop them afterwards.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

pub fn dup_to(from: RawFd, to: RawFd) -> Sys<()> {
    // SAFETY: no memory is passed. On equal numbers, as with the witness's, it does nothing.
    check(unsafe { libc::dup2(from, to) } as i64).map(drop)
}

/// A copy above the standard numbers.
pub fn dup_high(fd: RawFd) -> Sys<OwnedFd> {
    dup_from(fd, 3)
}

/// A copy whose number is `first` or above.
pub fn dup_from(fd: RawFd, first: RawFd) -> Sys<OwnedFd> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, first) } as i64).map(own)
}

/// Sees that a number is taken, by the null device where it was not.
pub fn occupy(number: RawFd) -> Sys<()> {
    // SAFETY: no memory is passed.
    if check(unsafe { libc::fcntl(number, libc::F_GETFD) } as i64).is_ok() {
        return Ok(());
    }
    let null = open("/dev/null", libc::O_RDWR)?;
    match null.as_raw_fd() == number {
        true => std::mem::forget(null),
        false => dup_to(null.as_raw_fd(), number)?,
    }
    Ok(())
}

pub fn set_nonblocking(fd: RawFd) -> Sys<()> {
    // SAFETY: no memory is passed.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) } as i64)? as i32;
    set_flags(fd, flags | libc::O_NONBLOCK)
}

/// Those that are not of how it was opened.
pub fn set_flags(fd: RawFd, flags: i32) -> Sys<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) } as i64).map(drop)
}

/// The end to read and the end to write.
pub fn pipe() -> Sys<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` is valid for writing.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } as i64)?;
    Ok((own(fds[0].into()), own(fds[1].into())))
}

pub fn chown(fd: RawFd, uid: u32, gid: u32) -> Sys<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchown(fd, uid, gid) } as i64).map(drop)
}

pub fn chmod(fd: RawFd, mode: u32) -> Sys<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchmod(fd, mode) } as i64).map(drop)
}

/// How many bytes a pipe holds. ioctl(2) FIONREAD.
pub fn unread(fd: RawFd) -> Sys<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: `count` outlives the call.
    check(unsafe { libc::ioctl(fd, libc::FIONREAD, &mut count) } as i64)?;
    Ok(count.max(0) as usize)
}

/// The number that the next new descriptor gets.
pub fn lowest_free() -> Sys<RawFd> {
    // SAFETY: no memory is passed; the descriptor is new, and of nobody's use.
    let number = check(unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 0) } as i64)? as u32;
    close_range(number, number)?;
    Ok(number as RawFd)
}

/// Takes (or releases) an OFD lock on one byte; false where somebody else has it.
pub fn lock_byte(fd: RawFd, offset: i64, kind: i32) -> Sys<bool> {
    // SAFETY: zero is a valid value of every field.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = offset;
    lock.l_len = 1;
    // SAFETY: `lock` outlives the call.
    match check(unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &lock) } as i64) {
        Ok(_) => Ok(true),
        Err(libc::EAGAIN) | Err(libc::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// random(4): bytes that count, and a generator that starts from them at once.
pub fn add_entropy(random: RawFd, bytes: &[u8]) -> Sys<()> {
    const ADD: u64 = 0x4008_5203;
    const RESEED: u64 = 0x5207;
    // struct rand_pool_info: bits, bytes, and those.
    let mut pool = Vec::with_capacity(8 + bytes.len());
    pool.extend((8 * bytes.len() as i32).to_ne_bytes());
    pool.extend((bytes.len() as i32).to_ne_bytes());
    pool.extend(bytes);
    // SAFETY: `pool` is as long as it says, and outlives the call.
    check(unsafe { libc::ioctl(random, ADD as _, pool.as_ptr()) } as i64)?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::ioctl(random, RESEED as _) } as i64).map(drop)
}

/// Private memory that costs nothing until it is touched.
pub fn map_private(length: usize) -> Sys<&'static mut [u8]> {
    let address = map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    // SAFETY: a new mapping of that length, which is never unmapped.
    Ok(unsafe { std::slice::from_raw_parts_mut(address, length) })
}

/// A shared anonymous mapping that a child can write to without a system call.
pub fn map_shared(length: usize) -> Sys<*mut u8> {
    map(length, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)
}

/// What others change at any moment.
#[cfg(target_arch = "x86_64")]
pub fn map_file(fd: RawFd, length: usize) -> Sys<*mut u8> {
    map(length, libc::MAP_SHARED, fd)
}

fn map(length: usize, flags: i32, fd: RawFd) -> Sys<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0) };
    if address == libc::MAP_FAILED {
        return Err(super::errno());
    }
    Ok(address.cast())
}

pub fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> Sys<usize> {
    loop {
        // SAFETY: `fds` is valid for reading and writing.
        match check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as u64, timeout_ms) } as i64) {
            Err(libc::EINTR) => {}
            other => return other.map(|count| count as usize),
        }
    }
}
