//! Processes: clone, wait, signals, credentials.

use super::{check, Sys};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

const TRIAL_STACK_BYTES: usize = 64 * 1024;
/// linux/sched.h; of libc's the type is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A plain clone, with a pidfd (Linux 5.2). Returns None in the child.
///
/// # Safety
/// No other thread of the caller runs meanwhile, so that the child may allocate.
pub unsafe fn clone(namespaces: i32) -> Sys<Option<(i32, OwnedFd)>> {
    let mut pidfd: RawFd = -1;
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: a null stack makes it a fork; `pidfd` is valid for writing.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone, flags as u64, 0u64, &mut pidfd as *mut RawFd, 0u64, 0u64)
    })?;
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has just made it.
    Ok(Some((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })))
}

/// The same as a process of the cgroup that `cgroup` leads to: version 2 alone (Linux 5.7).
///
/// # Safety
/// As for `clone`.
pub unsafe fn clone_into(namespaces: i32, cgroup: RawFd) -> Sys<Option<(i32, OwnedFd)>> {
    let mut pidfd: RawFd = -1;
    // SAFETY: zero is a valid value of every field. A null stack makes it a fork.
    let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
    wanted.flags = (namespaces | libc::CLONE_PIDFD) as u64 | CLONE_INTO_CGROUP;
    wanted.pidfd = &raw mut pidfd as u64;
    wanted.exit_signal = libc::SIGCHLD as u64;
    wanted.cgroup = cgroup as u64;
    // SAFETY: `wanted` is valid for its size, and `pidfd` for writing.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut wanted, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has just made it.
    Ok(Some((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })))
}

/// A plain fork by the raw system call: there are no atfork handlers to run. None in the child.
///
/// # Safety
/// As for `clone`.
pub unsafe fn fork() -> Sys<Option<i32>> {
    // SAFETY: a null stack makes it a fork.
    match check(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD as u64, 0u64, 0u64, 0u64, 0u64) })? {
        0 => Ok(None),
        pid => Ok(Some(pid as i32)),
    }
}

/// A fork of this process that shares its descriptors and its parent. None in the child.
///
/// # Safety
/// As for `clone`.
pub unsafe fn fork_beside() -> Sys<Option<i32>> {
    let flags = libc::CLONE_FILES | libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: a null stack makes it a fork.
    match check(unsafe { libc::syscall(libc::SYS_clone, flags as u64, 0u64, 0u64, 0u64, 0u64) })? {
        0 => Ok(None),
        pid => Ok(Some(pid as i32)),
    }
}

/// Tries it in a copy of this process, which has one thread: 0, or the errno, or minus the signal that has ended it.
pub fn in_child(trial: impl FnOnce() -> Sys<()>) -> i32 {
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        Ok(None) => exit(trial().err().unwrap_or(0)),
        Ok(Some(pid)) => ended_as(Ok(pid)),
        Err(errno) => errno,
    }
}

fn ended_as(child: Sys<i32>) -> i32 {
    match child.map(|pid| wait(pid, 0)) {
        Ok(Ok(Some((_, status, _)))) if libc::WIFEXITED(status) => libc::WEXITSTATUS(status),
        Ok(Ok(Some((_, status, _)))) => -libc::WTERMSIG(status),
        Ok(_) => libc::EIO,
        Err(errno) => errno,
    }
}

/// The same with nothing copied: the child has this memory while this process waits for its end. In gVisor a copy takes
/// milliseconds.
///
/// # Safety
/// As for `vfork_with`; `trial` keeps no memory that only a return would free.
pub unsafe fn in_sharing_child(trial: &mut dyn FnMut() -> Sys<()>) -> i32 {
    extern "C" fn main(argument: *mut libc::c_void) -> i32 {
        // SAFETY: the caller's, who waits.
        let trial = unsafe { &mut *argument.cast::<&mut dyn FnMut() -> Sys<()>>() };
        exit(trial().err().unwrap_or(0))
    }
    let mut trial = trial;
    let mut stack = vec![0; TRIAL_STACK_BYTES];
    // SAFETY: as the caller promises; `main` does not return.
    ended_as(unsafe { vfork_with(&mut stack, main, (&raw mut trial).cast()) })
}

/// Ends this process with `parent`, or fails where that has ended already.
pub fn die_with_parent(parent: i32) -> Sys<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
    match self::parent() {
        pid if pid == parent => Ok(()),
        _ => Err(libc::ESRCH),
    }
}

/// Runs `main` in a child that shares this memory while this process waits for its execve or exit, as vfork does:
/// nothing is copied. `stack` is the child's. Gives the child's pid.
///
/// # Safety
/// `main` neither returns nor keeps memory that only a return would free, and it touches nothing that another thread of
/// the caller might, which runs on.
pub unsafe fn vfork_with(
    stack: &mut [u8],
    main: extern "C" fn(*mut libc::c_void) -> i32,
    argument: *mut libc::c_void,
) -> Sys<i32> {
    // SAFETY: the end of the stack, aligned as the ABI wants it.
    let top = unsafe { stack.as_mut_ptr().add(stack.len() & !63) };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack outlives the child's use of it, since this process waits.
    check(unsafe { libc::clone(main, top.cast(), flags, argument) } as i64).map(|pid| pid as i32)
}

pub fn open_pidfd(pid: i32) -> Sys<OwnedFd> {
    // SAFETY: no memory is passed; the descriptor is new.
    check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

pub fn send_signal(pidfd: RawFd, signal: i32) -> Sys<()> {
    // SAFETY: the info is null.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, 0usize, 0) }).map(drop)
}

pub fn kill(pid: i32, signal: i32) -> Sys<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(pid, signal) } as i64).map(drop)
}

/// wait4 without blocking unless `options` say so. Ok(None) where nothing is to be reaped.
pub fn wait(pid: i32, options: i32) -> Sys<Option<(i32, i32, libc::rusage)>> {
    let mut status = 0;
    // SAFETY: zero is a valid value of every field.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both are valid for writing.
        match check(unsafe { libc::wait4(pid, &mut status, options, &mut usage) } as i64) {
            Ok(0) | Err(libc::ECHILD) => return Ok(None),
            Ok(found) => return Ok(Some((found as i32, status, usage))),
            Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

pub enum Child {
    Runs,
    Stopped,
    Gone,
}

/// What has become of a child. One that has ended is reaped.
pub fn look_at(pid: i32) -> Child {
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    match unsafe { libc::wait4(pid, &mut status, libc::WNOHANG | libc::WUNTRACED, std::ptr::null_mut()) } {
        0 => Child::Runs,
        found if found == pid && libc::WIFSTOPPED(status) => Child::Stopped,
        _ => Child::Gone,
    }
}

/// Blocks SIGCHLD and SIGTERM and gives a descriptor that becomes readable in their place.
pub fn watch_signals() -> Sys<OwnedFd> {
    // SAFETY: the set is initialised before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigaddset(&mut set, libc::SIGTERM);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) as i64)?;
        check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) as i64)
            .map(|fd| OwnedFd::from_raw_fd(fd as RawFd))
    }
}

pub fn block_signal(number: i32) -> Sys<()> {
    // SAFETY: the set is initialised before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, number);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) as i64).map(drop)
    }
}

/// Empties a descriptor of `watch_signals`. True where SIGTERM was among them.
pub fn drain_signals(fd: RawFd) -> bool {
    const SIZE: usize = std::mem::size_of::<libc::signalfd_siginfo>();
    let mut buffer = [0u8; SIZE * 8];
    let mut asked = false;
    loop {
        // SAFETY: `buffer` is valid for writing; the descriptor does not block.
        let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        if count <= 0 {
            return asked;
        }
        // The signal's number is the first field of each record.
        let records = buffer[..count as usize].chunks_exact(SIZE);
        asked |= records.into_iter().any(|record| record[..4] == (libc::SIGTERM as u32).to_ne_bytes());
        if (count as usize) < buffer.len() {
            return asked;
        }
    }
}

/// Default actions for every signal, and SIGCHLD blocked no more. Children inherit it.
pub fn default_signals() -> Sys<()> {
    // SAFETY: a zeroed sigaction is SIG_DFL with an empty mask.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    for signal in 1..=64 {
        // The two that can't be changed answer EINVAL.
        // SAFETY: `default` outlives the call.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &default, 0usize, 8) };
    }
    unblock_signals()
}

/// An empty signal mask.
pub fn unblock_signals() -> Sys<()> {
    let empty: u64 = 0;
    // SAFETY: `empty` outlives the call.
    check(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &empty, 0usize, 8) }).map(drop)
}

pub fn prctl(option: i32, argument: u64) -> Sys<i64> {
    // SAFETY: the options used here take numbers.
    check(unsafe { libc::prctl(option, argument, 0u64, 0u64, 0u64) } as i64)
}

/// Whether a capability is in the ambient set.
pub fn ambient(capability: u32) -> Sys<bool> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET, capability as u64, 0, 0) }
        as i64)
    .map(|set| set != 0)
}

pub fn set_name(name: &std::ffi::CStr) {
    // SAFETY: `name` outlives the call. The name is a nicety, so a failure is of no interest.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

pub fn drop_groups() -> Sys<()> {
    // SAFETY: an empty list.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, 0usize) }).map(drop)
}

pub fn set_gid(gid: u32) -> Sys<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

pub fn set_uid(uid: u32) -> Sys<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// User and group.
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: no memory is passed.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// System, release, version and machine. uname(2).
pub fn uname() -> Sys<[Vec<u8>; 4]> {
    // SAFETY: zero is a valid value of every field.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is valid for writing.
    check(unsafe { libc::uname(&mut name) } as i64)?;
    let text = |field: &[libc::c_char]| field.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    Ok([text(&name.sysname), text(&name.release), text(&name.version), text(&name.machine)])
}

pub fn parent() -> i32 {
    // SAFETY: no memory is passed.
    unsafe { libc::getppid() }
}

pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Sys<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &limit, 0usize) }).map(drop)
}

/// Soft and hard.
pub fn limit(resource: u32) -> Sys<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, 0usize, &mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets CLOCK_REALTIME.
pub fn set_clock(since_1970_ns: u64) -> Sys<()> {
    let second = 1_000_000_000;
    let time =
        libc::timespec { tv_sec: (since_1970_ns / second) as i64, tv_nsec: (since_1970_ns % second) as i64 };
    // SAFETY: `time` outlives the call.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &time) } as i64).map(drop)
}

/// Loads a module of the kernel's. finit_module(2).
pub fn load_module(file: RawFd) -> Sys<()> {
    // SAFETY: the empty string is static.
    check(unsafe { libc::syscall(libc::SYS_finit_module, file, c"".as_ptr(), 0) }).map(drop)
}

/// Ends the machine at once. Comes back where that is not allowed.
pub fn reboot() {
    // SAFETY: no memory is passed.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
}

/// exit_group(2). Where a filter refuses even that, an illegal instruction ends the process.
pub fn exit(status: i32) -> ! {
    // SAFETY: does not return; the instruction after it ends the process by a signal that can't be refused.
    unsafe {
        libc::syscall(libc::SYS_exit_group, status);
        std::arch::asm!("ud2", options(noreturn));
    }
}
