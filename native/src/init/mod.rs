//! Process 1 of a box: makes the box around itself and becomes the stem of its commands. The kernel lets nothing in the
//! box kill or stop it, and ends the box with it. A bare box has no such process, and gets a supervisor.

pub mod command;
pub mod landlock;
pub mod root;
pub mod start;
pub mod starter;
pub mod stem;
mod supervisor;

use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::plan::Plan;
use crate::sys::{fd, namespace, process, socket};
use std::cell::OnceCell;
use std::os::fd::{IntoRawFd, RawFd};

/// What a new box inherits from the spawner, as descriptors of its own.
pub struct Birth<'a> {
    pub plan: &'a Plan,
    /// To the spawner, until the first command.
    pub ctl: RawFd,
    /// The spawner's pidfd: readable when it is gone.
    pub spawner: RawFd,
    /// The box maps a range of ids, so that the stem can be its root and groups can be dropped.
    pub range: bool,
    /// In a bare box: the host's ids that its commands have.
    pub bare_user: Option<(u32, u32)>,
    /// The spawner may inspect any process, dumpable or not.
    pub privileged: bool,
    /// What somebody asks of it, which a box that is made ahead waits for.
    pub order: OnceCell<Order>,
}

/// What comes with the request for a box, as descriptors of this process.
pub struct Order {
    /// To the engine: requests for commands.
    pub engine: RawFd,
    /// The user's mounts, detached.
    pub trees: Vec<RawFd>,
    pub one_shot: bool,
}

impl Birth<'_> {
    /// Waits for it where it has not come yet.
    pub fn order(&self) -> Outcome<&Order> {
        loop {
            if let Some(order) = self.order.get() {
                return Ok(order);
            }
            self.hear_spawner()?;
        }
    }

    /// That the maps are written; and the order, which may come with it.
    fn hear_spawner(&self) -> Outcome<()> {
        let mut buffer = [0; 64];
        let message = socket::receive(self.ctl, &mut buffer).at("order", "")?;
        let message = message.ok_or_else(|| Fault::new("order", "spawner", libc::EPIPE))?;
        let Some((header, _)) = frame::split(message.data).filter(|(header, _)| header.kind == frame::ORDER)
        else {
            return Ok(());
        };
        let mut fds = message.fds.into_iter().map(IntoRawFd::into_raw_fd);
        let engine = fds.next().ok_or_else(|| Fault::new("order", "engine", libc::EBADMSG))?;
        process::set_name(c"immure-init");
        let order = Order { engine, trees: fds.collect(), one_shot: header.flags & frame::ONE_SHOT != 0 };
        self.order.set(order).map_err(|_| Fault::new("order", "twice", libc::EBADMSG))
    }

    /// What is kept of the descriptors, beside the standard ones.
    fn own_descriptors(&self) -> Vec<RawFd> {
        let mut own = vec![0, 1, 2, self.ctl, self.spawner];
        own.extend(self.order.get().map(|order| order.engine));
        own
    }
}

/// Runs in place after the clone. Never returns.
pub fn run(birth: Birth) -> ! {
    or_tell(&birth, || live(&birth))
}

/// Ends this process, and tells the spawner of what went wrong. It may be gone; then there is nobody to tell.
fn or_tell(birth: &Birth, work: impl FnOnce() -> Outcome<()>) -> ! {
    let fault = work().err();
    if let Some(fault) = &fault {
        let _ = socket::send(birth.ctl, &frame::fault(frame::FAULT, 0, fault), &[]);
    }
    process::exit(i32::from(fault.is_some()))
}

fn live(birth: &Birth) -> Outcome<()> {
    // A name of its own for as long as it is nobody's.
    process::set_name(c"immure-spare");
    fd::close_all_but(&mut birth.own_descriptors()).at("descriptors", "")?;
    // While the spawner writes the maps. Everything in the box inherits it.
    command::drop_bounding_set(&birth.plan.command)?;
    birth.hear_spawner()?;
    if birth.bare_user.is_some() {
        return supervisor::run(birth);
    }
    make_box(birth)?;
    fd::close_all_but(&mut birth.own_descriptors()).at("descriptors", "")?;
    stem::run(birth, None)
}

fn make_box(birth: &Birth) -> Outcome<()> {
    if birth.range {
        process::drop_groups().at("identity", "groups")?;
        process::set_gid(0).at("identity", "gid 0")?;
        process::set_uid(0).at("identity", "uid 0")?;
    }
    die_with_spawner(birth.spawner)?;
    if birth.plan.namespaces & libc::CLONE_NEWCGROUP != 0 {
        // Not at the clone: its root is where its maker is at that moment, and commands would see a path beside it.
        namespace::unshare(libc::CLONE_NEWCGROUP).at("cgroup namespace", "unshare")?;
    }
    root::build(birth)
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
pub fn hide_from_box() -> Outcome<()> {
    process::prctl(libc::PR_SET_DUMPABLE, 0).at("dumpable", "").map(drop)
}
