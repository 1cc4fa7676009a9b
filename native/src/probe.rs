//! Tries what boxes need, each in a process of its own that ends at once, and prints `name=errno` lines.

use crate::sys::{self, fd, mount, namespace, process, security, trace, Sys};
use std::os::fd::AsRawFd;

type Trial = fn() -> Sys<()>;

pub fn run() {
    let trials: [(&str, Trial); 4] = [
        ("seccomp", try_seccomp),
        ("user_namespaces", try_user_namespace),
        ("new_proc", try_new_proc),
        ("ptrace", try_ptrace),
    ];
    for (name, trial) in trials {
        let errno = match process::in_child(trial) {
            // A signal has ended it.
            ..0 => libc::EIO,
            errno => errno,
        };
        println!("{name}={errno}");
    }
}

/// One instruction: return SECCOMP_RET_ALLOW.
fn try_seccomp() -> Sys<()> {
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    let allow_all = [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f];
    security::install_filter(&allow_all, 0)
}

fn try_user_namespace() -> Sys<()> {
    namespace::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET)?;
    // Where an LSM lets the namespace be made and takes its powers away, this is what fails.
    mount::set_propagation(libc::MS_PRIVATE)
}

fn try_new_proc() -> Sys<()> {
    namespace::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID)?;
    // SAFETY: this process has one thread.
    match unsafe { process::fork() }? {
        None => {
            let tried = mount::new_filesystem("proc", &[], 0).map(drop);
            process::exit(tried.err().unwrap_or(0))
        }
        Some(pid) => match process::wait(pid, 0)? {
            Some((_, status, _)) if libc::WEXITSTATUS(status) == 0 => Ok(()),
            Some((_, status, _)) => Err(libc::WEXITSTATUS(status)),
            None => Err(libc::ECHILD),
        },
    }
}

/// Attaches to a child that waits on a pipe.
fn try_ptrace() -> Sys<()> {
    let (ours, theirs) = sys::socket::pair()?;
    // SAFETY: this process has one thread.
    let Some(pid) = unsafe { process::fork() }? else {
        drop(ours);
        let _ = fd::read(theirs.as_raw_fd(), &mut [0]);
        process::exit(0);
    };
    let tried = trace::seize(pid);
    process::kill(pid, libc::SIGKILL)?;
    process::wait(pid, libc::__WALL)?;
    tried
}
