//! What keeps a bare box together: a process outside the commands' Landlock domain, to which orphans come and which
//! ends them all, since there is no pid namespace that would.

use super::{stem, Birth};
use crate::fault::{At, Outcome};
use crate::processes;
use crate::sys::{fd, process, socket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

pub fn run(birth: &Birth) -> Outcome<()> {
    process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).at("subreaper", "")?;
    let signals = process::watch_signals().at("signals", "")?;
    let (bell, rope) = socket::pair().at("bell", "")?;
    // SAFETY: the spawner, and so its copy, has one thread.
    let stem = match unsafe { process::fork() }.at("stem", "fork")? {
        None => {
            drop((signals, bell));
            become_stem(birth, rope)
        }
        Some(pid) => pid,
    };
    std::mem::forget(rope);
    fd::close_all_but(&mut [0, 1, 2, birth.spawner, signals.as_raw_fd(), bell.as_raw_fd()])
        .at("descriptors", "")?;
    super::hide_from_box()?;
    wait_for_end(stem, &signals, [birth.spawner, bell.as_raw_fd()])?;
    end_descendants();
    Ok(())
}

fn become_stem(birth: &Birth, rope: OwnedFd) -> ! {
    process::set_name(c"immure-stem");
    super::or_tell(birth, || {
        let mut own = vec![0, 1, 2, birth.ctl, birth.order()?.engine, rope.as_raw_fd()];
        fd::close_all_but(&mut own).at("descriptors", "")?;
        stem::run(birth, Some(&rope))
    })
}

/// Returns with the stem, on SIGTERM from outside, or with what is `watched`: the spawner's life, and the stem's word
/// that it is done, which comes sooner than its own end.
fn wait_for_end(stem: i32, signals: &OwnedFd, watched: [RawFd; 2]) -> Outcome<()> {
    let mut watch = [signals.as_raw_fd(), watched[0], watched[1]].map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    loop {
        fd::poll(&mut watch, -1).at("poll", "")?;
        if watch[1].revents != 0 || watch[2].revents != 0 {
            return Ok(());
        }
        if process::drain_signals(signals.as_raw_fd()) {
            return Ok(());
        }
        while let Some((pid, _, _)) = process::wait(-1, libc::WNOHANG).at("wait", "")? {
            if pid == stem {
                return Ok(());
            }
        }
    }
}

/// Ends every process of the box. What a killed one leaves behind comes to this process, until none is left.
fn end_descendants() {
    loop {
        for pid in children() {
            // It may have ended by itself.
            let _ = process::kill(pid, libc::SIGKILL);
        }
        if !matches!(process::wait(-1, 0), Ok(Some(_))) {
            return;
        }
    }
}

/// Of this process. Not every kernel lists them (CONFIG_PROC_CHILDREN), but each says of every process whose child it is.
fn children() -> Vec<i32> {
    let own = std::process::id();
    match fd::read_file_at(libc::AT_FDCWD, &format!("/proc/self/task/{own}/children")) {
        Ok(list) => String::from_utf8_lossy(&list).split_whitespace().flat_map(str::parse).collect(),
        Err(_) => {
            let found = processes::all().map(|(found, _)| found).unwrap_or_default();
            found.iter().filter(|one| one.parent == own as i32).map(|one| one.pid).collect()
        }
    }
}
