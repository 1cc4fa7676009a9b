//! The seccomp filters of running processes, read from outside. Each process is stopped for as long as that takes and
//! goes on as before, with two traces: its `TracerPid` was set, and a call that waited may have answered EINTR, as after
//! SIGSTOP and SIGCONT (signal(7)). One that waits for the supervisor of a filter (seccomp_unotify(2)) is left alone, and
//! is EBUSY.
//!
//! The kernel lets go of a tracee whose tracer ends, however it ends, so that none stays stopped.

use crate::sys::{fd, process, trace, Sys};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long a process may take to stop: one that waits for its child's execve after vfork does not before that.
const STOP_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// What became of a wait for a stop.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// With the signal that it must be let go with.
    Stopped(i32),
    Ended,
}

/// Prints one MessagePack map of pids: to each a list of programs of packed `struct sock_filter`s, the oldest first, or
/// the errno by which they were not to be had.
pub fn run(pids: &[i32]) {
    let mut out = Vec::new();
    // Writing to memory can't fail.
    let _ = rmp::encode::write_map_len(&mut out, pids.len() as u32);
    let allowed = try_on_child();
    for &pid in pids {
        let _ = rmp::encode::write_sint(&mut out, pid.into());
        // Nobody is stopped in vain.
        put(&mut out, process::kill(pid, 0).and(allowed).and_then(|()| of(pid)));
    }
    if fd::write_all(1, &out).is_err() {
        process::exit(1);
    }
}

/// Whether any can be read from here, which takes CAP_SYS_ADMIN on the host, and no filter of our own: asked of a child.
fn try_on_child() -> Sys<()> {
    let (theirs, ours) = fd::pipe()?;
    // SAFETY: this process has one thread.
    let Some(pid) = unsafe { process::fork() }? else {
        drop(ours);
        let _ = fd::read(theirs.as_raw_fd(), &mut [0]);
        process::exit(0);
    };
    let tried = of(pid).map(drop);
    drop(ours);
    process::kill(pid, libc::SIGKILL)?;
    process::wait(pid, libc::__WALL)?;
    tried
}

fn put(out: &mut Vec<u8>, answer: Sys<Vec<Vec<u8>>>) {
    let _ = match answer {
        Err(errno) => rmp::encode::write_sint(out, errno.into()).map(drop),
        Ok(programs) => {
            let _ = rmp::encode::write_array_len(out, programs.len() as u32);
            programs.iter().try_for_each(|program| rmp::encode::write_bin(out, program))
        }
    };
}

/// Those of one process, or of one thread.
fn of(pid: i32) -> Sys<Vec<Vec<u8>>> {
    if waits_for_supervisor(pid) {
        return Err(libc::EBUSY);
    }
    trace::seize_gently(pid)?;
    // ESRCH where it has ended since.
    trace::interrupt(pid)?;
    match wait_for_stop(pid)? {
        Seen::Ended => Err(libc::ESRCH),
        Seen::Stopped(signal) => {
            let read = all(pid);
            match trace::detach_with(pid, signal) {
                // It was killed meanwhile.
                Ok(()) | Err(libc::ESRCH) => read,
                Err(errno) => Err(errno),
            }
        }
    }
}

/// A stop has such a call begin anew, and its supervisor asked twice: gVisor's ends processes of the box then. Where the
/// kernel does not say what a process waits in, nothing is known of that.
fn waits_for_supervisor(pid: i32) -> bool {
    let mut buffer = [0; 256];
    let place = fd::read_small_at(libc::AT_FDCWD, &format!("/proc/{pid}/wchan"), &mut buffer);
    place.is_ok_and(|place| place.starts_with(b"seccomp_do_user_notification"))
}

fn all(pid: i32) -> Sys<Vec<Vec<u8>>> {
    let mut programs = Vec::new();
    loop {
        match trace::filter(pid, programs.len()) {
            Ok(program) => programs.push(program),
            // One past the last; EINVAL where the process has no filters at all.
            Err(libc::ENOENT) => return Ok(programs),
            Err(libc::EINVAL) if programs.is_empty() => return Ok(programs),
            Err(errno) => return Err(errno),
        }
    }
}

fn wait_for_stop(pid: i32) -> Sys<Seen> {
    let deadline = Instant::now() + STOP_WITHIN;
    loop {
        if let Some((_, status, _)) = process::wait(pid, libc::WNOHANG | libc::__WALL)? {
            return Ok(seen(status));
        }
        if Instant::now() > deadline {
            // It can be let go only when stopped, or by our end, which follows.
            return Err(libc::ETIMEDOUT);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn seen(status: i32) -> Seen {
    match status >> 16 {
        _ if !libc::WIFSTOPPED(status) => Seen::Ended,
        // It was about to take a signal, and is to take it.
        0 => Seen::Stopped(libc::WSTOPSIG(status)),
        // Our own stop; or that of a process that was stopped already, which stays so.
        _ => Seen::Stopped(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_came_first_is_passed_on_and_a_stop_is_not() {
        let stopped = |signal: i32, event: i32| event << 16 | signal << 8 | 0x7f;
        assert_eq!(seen(stopped(libc::SIGUSR1, 0)), Seen::Stopped(libc::SIGUSR1));
        assert_eq!(seen(stopped(libc::SIGTRAP, libc::PTRACE_EVENT_STOP)), Seen::Stopped(0));
        assert_eq!(seen(stopped(libc::SIGSTOP, libc::PTRACE_EVENT_STOP)), Seen::Stopped(0));
        assert_eq!(seen(0), Seen::Ended);
        assert_eq!(seen(libc::SIGKILL), Seen::Ended);
    }

    #[test]
    fn what_can_not_be_read_is_an_errno() {
        // None of the kernel's pids is as large.
        assert_eq!(of(i32::MAX), Err(libc::ESRCH));
        let mut out = Vec::new();
        put(&mut out, Err(libc::ESRCH));
        put(&mut out, Ok(vec![vec![7], vec![]]));
        assert_eq!(out, b"\x03\x92\xc4\x01\x07\xc4\x00");
    }
}
