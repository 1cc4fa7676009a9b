//! Process 1 of a box: makes the box around itself, starts the stem, reaps orphans, and ends the box.

mod command;
mod landlock;
mod root;
mod stem;

use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::plan::Plan;
use crate::sys::{fd, process, socket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// What a new box inherits from the spawner, as descriptors of its own.
pub struct Birth<'a> {
    pub plan: &'a Plan,
    /// To the spawner, until the first command.
    pub ctl: RawFd,
    /// To the engine: requests for commands.
    pub engine: RawFd,
    /// The spawner's pidfd: readable when it is gone.
    pub spawner: RawFd,
    pub trees: Vec<RawFd>,
    /// The box maps a range of ids, so that the stem can be its root and groups can be dropped.
    pub range: bool,
    pub one_shot: bool,
    /// In a bare box: the host's ids that its commands have.
    pub bare_user: Option<(u32, u32)>,
    /// The spawner may inspect any process, dumpable or not.
    pub privileged: bool,
}

/// Runs as pid 1, in place after the clone. Never returns.
pub fn run(birth: Birth) -> ! {
    if let Err(fault) = live(&birth) {
        // The spawner may be gone; then there is nobody to tell.
        let _ = socket::send(birth.ctl, &frame::fault(frame::FAULT, 0, &fault), &[]);
        process::exit(1);
    }
    process::exit(0)
}

fn live(birth: &Birth) -> Outcome<()> {
    process::set_name(c"immure-init");
    let mut keep = birth.trees.clone();
    keep.extend([0, 1, 2, birth.ctl, birth.engine, birth.spawner]);
    fd::close_all_but(&mut keep).at("descriptors", "")?;
    // While the spawner writes the maps. Everything in the box inherits it.
    command::drop_bounding_set(&birth.plan.command)?;
    if socket::receive(birth.ctl, &mut [0; 64]).at("maps", "")?.is_none() {
        return Err(Fault::new("maps", "spawner", libc::EPIPE));
    }
    if birth.bare_user.is_some() {
        // Orphans come to this process, since there is no pid namespace that would end with it.
        process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).at("subreaper", "")?;
    } else {
        make_box(birth)?;
    }
    let signals = process::watch_signals().at("signals", "")?;
    let (bell, rope) = socket::pair().at("bell", "")?;
    // SAFETY: the spawner, and so its copy, has one thread.
    let stem = match unsafe { process::fork() }.at("stem", "fork")? {
        None => {
            drop((signals, bell));
            stem::run(birth, rope)
        }
        Some(pid) => pid,
    };
    std::mem::forget(rope);
    fd::close_all_but(&mut [0, 1, 2, birth.spawner, signals.as_raw_fd(), bell.as_raw_fd()])
        .at("descriptors", "")?;
    hide_from_box()?;
    reap(stem, &signals, [birth.spawner, bell.as_raw_fd()])?;
    if birth.bare_user.is_some() {
        end_descendants();
    }
    Ok(())
}

fn make_box(birth: &Birth) -> Outcome<()> {
    if birth.range {
        process::drop_groups().at("identity", "groups")?;
        process::set_gid(0).at("identity", "gid 0")?;
        process::set_uid(0).at("identity", "uid 0")?;
    }
    die_with_spawner(birth.spawner)?;
    root::build(&birth.plan.root, &birth.trees)
}

/// The kernel's signal on the parent's death is cleared by a change of credentials, so this comes after the last.
fn die_with_spawner(spawner: RawFd) -> Outcome<()> {
    process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64).at("parent death signal", "")?;
    let mut watch = [libc::pollfd { fd: spawner, events: libc::POLLIN, revents: 0 }];
    match fd::poll(&mut watch, 0).at("spawner", "poll")? {
        0 => Ok(()),
        _ => Err(Fault::new("spawner", "gone", libc::ESRCH)),
    }
}

/// Not dumpable: no ptrace, no descriptors and no memory for a process of the box, whatever its user.
fn hide_from_box() -> Outcome<()> {
    process::prctl(libc::PR_SET_DUMPABLE, 0).at("dumpable", "").map(drop)
}

/// Ends with the stem, on SIGTERM from outside, or with what is `watched`: the spawner's life, and the stem's word that
/// it is done, which comes sooner than its own end.
fn reap(stem: i32, signals: &OwnedFd, watched: [RawFd; 2]) -> Outcome<()> {
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

/// Ends every process of a bare box. What a killed one leaves behind comes to this process, until none is left.
fn end_descendants() {
    let list = format!("/proc/self/task/{}/children", std::process::id());
    loop {
        let children = fd::read_file_at(libc::AT_FDCWD, &list).unwrap_or_default();
        for word in children.split(|byte| *byte == b' ').filter(|word| !word.is_empty()) {
            if let Some(pid) = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok()) {
                // It may have ended by itself.
                let _ = process::kill(pid, libc::SIGKILL);
            }
        }
        if !matches!(process::wait(-1, 0), Ok(Some(_))) {
            return;
        }
    }
}
