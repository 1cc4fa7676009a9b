//! ptrace, as far as a look at a process needs it.

use super::{check, Sys};

const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;

fn request(kind: libc::c_uint, pid: i32, address: usize, data: usize) -> Sys<i64> {
    // SAFETY: the callers pass numbers or buffers that outlive the call.
    check(unsafe { libc::syscall(libc::SYS_ptrace, kind as u64, pid, address, data) })
}

/// Attaches without stopping. The tracee dies with us, and will stop once more after its execve.
pub fn seize(pid: i32) -> Sys<()> {
    let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACEEXEC;
    request(libc::PTRACE_SEIZE, pid, 0, options as usize).map(drop)
}

/// Attaches without stopping. When we end, the tracee goes on.
pub fn seize_gently(pid: i32) -> Sys<()> {
    request(libc::PTRACE_SEIZE, pid, 0, 0).map(drop)
}

/// Whether a wait status is the stop after an execve, before the new program's first instruction.
pub fn stopped_by_exec(status: i32) -> bool {
    status >> 8 == libc::SIGTRAP | libc::PTRACE_EVENT_EXEC << 8
}

/// Has a tracee stop where it is, as soon as it can.
pub fn interrupt(pid: i32) -> Sys<()> {
    request(libc::PTRACE_INTERRUPT, pid, 0, 0).map(drop)
}

/// Lets a stopped tracee go on, without the signal that stopped it.
pub fn detach(pid: i32) -> Sys<()> {
    detach_with(pid, 0)
}

/// Lets a stopped tracee go on, with a signal.
pub fn detach_with(pid: i32, signal: i32) -> Sys<()> {
    request(libc::PTRACE_DETACH, pid, 0, signal as usize).map(drop)
}

/// Lets a stopped tracee go on with `signal`, still attached.
pub fn resume(pid: i32, signal: i32) -> Sys<()> {
    request(libc::PTRACE_CONT, pid, 0, signal as usize).map(drop)
}

/// The installed filter number `index`, the oldest first, as packed `struct sock_filter`s. Linux 4.4;
/// needs CAP_SYS_ADMIN in the initial user namespace.
pub fn filter(pid: i32, index: usize) -> Sys<Vec<u8>> {
    let length = request(PTRACE_SECCOMP_GET_FILTER, pid, index, 0)? as usize;
    let mut program = vec![0u8; length * 8];
    request(PTRACE_SECCOMP_GET_FILTER, pid, index, program.as_mut_ptr() as usize)?;
    Ok(program)
}
