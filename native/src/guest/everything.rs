//! All that runs in the box, at once: what descends from this process. As process 1 that is everything.

use crate::fault::Outcome;
use crate::processes::{all, Known};
use crate::sys::{fd, process};

/// What one look at /proc has found.
struct Found {
    descendants: Vec<Known>,
    /// Nothing was there that had gone before it was looked at: what descends from such a one may be missing.
    whole: bool,
}

/// Sends it to everything. As process 1 in one step, which no fork escapes.
pub fn signal(number: i32) -> Outcome<()> {
    if std::process::id() == 1 {
        // There may be nothing.
        let _ = process::kill(-1, number);
        return Ok(());
    }
    for one in look()?.descendants {
        // It may have ended.
        let _ = process::kill(one.pid, number);
    }
    Ok(())
}

/// Stops what has not stopped yet. True once there is nothing of that kind, and nothing was made while it was looked for.
pub fn stop() -> Outcome<bool> {
    let newest = newest_pid();
    let found = look()?;
    let all = &found.descendants;
    // One that waits for its child's execve, after vfork, waits until that goes on.
    let waits = |one: &Known| all.iter().any(|child| child.parent == one.pid && is_stopped(child));
    if !all.iter().all(|one| is_stopped(one) || one.state == b'D' && waits(one)) {
        signal(libc::SIGSTOP)?;
        return Ok(false);
    }
    Ok(found.whole && newest_pid() == newest)
}

fn is_stopped(one: &Known) -> bool {
    matches!(one.state, b'T' | b't' | b'Z' | b'X')
}

/// The number of the process that was made last. proc(5), loadavg.
fn newest_pid() -> Option<i32> {
    let mut buffer = [0; 256];
    let text = fd::read_small_at(libc::AT_FDCWD, "/proc/loadavg", &mut buffer).ok()?;
    std::str::from_utf8(text).ok()?.split_ascii_whitespace().last()?.parse().ok()
}

/// Ends it all, and waits until it is gone. `commands` are known to run, whatever /proc shows.
pub fn end(commands: impl Iterator<Item = i32>) {
    for pid in commands {
        let _ = process::kill(-pid, libc::SIGKILL);
        let _ = process::kill(pid, libc::SIGKILL);
    }
    loop {
        // Where /proc can't be read, the commands that are known are all that can be.
        let _ = signal(libc::SIGKILL);
        if !matches!(process::wait(-1, 0), Ok(Some(_))) {
            return;
        }
    }
}

fn look() -> Outcome<Found> {
    let (mut others, whole) = all()?;
    let mut found: Vec<Known> = Vec::new();
    let mut parents = vec![std::process::id() as i32];
    while let Some(parent) = parents.pop() {
        let (below, rest): (Vec<Known>, Vec<Known>) =
            others.into_iter().partition(|one| one.parent == parent);
        parents.extend(below.iter().map(|one| one.pid));
        found.extend(below);
        others = rest;
    }
    Ok(Found { descendants: found, whole })
}
