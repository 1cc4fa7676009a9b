//! A box before it is anybody's: made so far, and waiting for a request.

use super::cell::{Cell, Request};
use super::cgroup::Cgroups;
use super::host::Host;
use super::ids::{Claim, Ids};
use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::init::{self, Birth};
use crate::plan::{Plan, RootOp};
use crate::sys::{fd, mount, process, socket, Sys};
use std::cell::OnceCell;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// A box that is nobody's: its process goes as far as it can without what comes with a request, and waits for that.
pub struct Unborn {
    pub id: u32,
    pub pid: i32,
    pidfd: OwnedFd,
    ctl: OwnedFd,
    bare: bool,
    claim: Claim,
    cgroups: Cgroups,
}

/// Begins a box. The process is in the template's mount namespace.
pub fn begin(
    id: u32,
    plan: &Plan,
    host: &Host,
    ids: &mut Ids,
    spawner: RawFd,
    cgroups: Cgroups,
) -> Outcome<Unborn> {
    let claim = match ids.claim(plan.user, plan.group) {
        Ok(claim) => claim,
        Err(fault) => {
            cgroups.remove();
            return Err(fault);
        }
    };
    match clone_box(plan, host, ids, spawner, &claim, &cgroups) {
        Ok((pid, pidfd, ctl)) => Ok(Unborn { id, pid, pidfd, ctl, bare: plan.bare, claim, cgroups }),
        Err(fault) => {
            ids.release(&claim, 0);
            cgroups.remove();
            Err(fault)
        }
    }
}

impl Unborn {
    /// Lets it do what it can before somebody wants it. One that has ended already is waited for like any other.
    pub fn go_on(&self) {
        let _ = socket::send(self.ctl.as_raw_fd(), &frame::header(frame::GO, 0, 0), &[]);
    }

    /// Hands it what came with a request, whose box it is from now on.
    pub fn order(
        &self,
        request: &Request,
        host: &Host,
        template: Option<RawFd>,
        ids: &mut Ids,
    ) -> Outcome<()> {
        let trees = user_trees(request, host, template, ids, &self.claim)?;
        let mut fds = vec![request.engine.as_raw_fd()];
        fds.extend(trees.iter().map(|tree| tree.as_raw_fd()));
        let flags = if request.one_shot { frame::ONE_SHOT } else { 0 };
        socket::send(self.ctl.as_raw_fd(), &frame::header(frame::ORDER, flags, 0), &fds).at("box", "order")
    }

    /// The box of a request that it was handed.
    pub fn born(self, request: Request) -> Cell {
        Cell {
            id: self.id,
            pid: self.pid,
            pidfd: self.pidfd,
            one_shot: request.one_shot,
            bare: self.bare,
            owner: request.owner,
            ctl: Some(self.ctl),
            claim: self.claim,
            cgroups: self.cgroups,
            witness: None,
            inspected: false,
            membership: Vec::new(),
        }
    }

    pub fn kill(&self) {
        // It may have ended; then it is waited for all the same.
        let _ = process::send_signal(self.pidfd.as_raw_fd(), libc::SIGKILL);
    }

    /// Ends it, and gives back what it had.
    pub fn abandon(self, ids: &mut Ids) {
        self.kill();
        let _ = process::wait(self.pid, libc::__WALL);
        self.bury(ids);
    }

    /// Gives back what one had that has ended.
    pub fn bury(self, ids: &mut Ids) {
        ids.release(&self.claim, 0);
        self.cgroups.remove();
    }
}

fn clone_box(
    plan: &Plan,
    host: &Host,
    ids: &Ids,
    spawner: RawFd,
    claim: &Claim,
    cgroups: &Cgroups,
) -> Outcome<(i32, OwnedFd, OwnedFd)> {
    let (ours, theirs) = socket::pair().at("box", "socket")?;
    socket::pass_credentials(ours.as_raw_fd()).at("box", "socket")?;
    let birth = Birth {
        plan,
        ctl: theirs.as_raw_fd(),
        spawner,
        range: ids.range(),
        bare_user: plan.bare.then(|| claim.host_ids()),
        privileged: !ids.rootless(),
        order: OnceCell::new(),
    };
    // SAFETY: the spawner has one thread.
    let Some((pid, pidfd, born)) =
        unsafe { born_in(cgroups, plan.namespaces & !libc::CLONE_NEWCGROUP) }.at("box", "clone")?
    else {
        init::run(birth)
    };
    let mapped = if plan.bare { Ok(()) } else { host.write_maps(pid, &claim.uid_map, &claim.gid_map) };
    if let Err(fault) = mapped.and_then(|()| cgroups.add(pid, born)) {
        process::send_signal(pidfd.as_raw_fd(), libc::SIGKILL).at("box", "kill")?;
        process::wait(pid, 0).at("box", "wait")?;
        return Err(fault);
    }
    Ok((pid, pidfd, ours))
}

/// A clone in the box's cgroup of version 2, and which that is. A container's filter may refuse clone3, as ENOSYS or EPERM;
/// then it is a plain one, that has to be moved.
///
/// # Safety
/// As for `process::clone`.
unsafe fn born_in(cgroups: &Cgroups, namespaces: i32) -> Sys<Option<(i32, OwnedFd, Option<RawFd>)>> {
    if let Some(place) = cgroups.birthplace() {
        // SAFETY: the caller's.
        match unsafe { process::clone_into(namespaces, place) } {
            Err(libc::ENOSYS | libc::EPERM) => {}
            made => return made.map(|parent| parent.map(|(pid, pidfd)| (pid, pidfd, Some(place)))),
        }
    }
    // SAFETY: the caller's.
    unsafe { process::clone(namespaces) }.map(|parent| parent.map(|(pid, pidfd)| (pid, pidfd, None)))
}

/// The user's mounts as detached trees, idmapped where the box has ids of its own.
fn user_trees(
    request: &Request,
    host: &Host,
    template: Option<RawFd>,
    ids: &mut Ids,
    claim: &Claim,
) -> Outcome<Vec<OwnedFd>> {
    let paths = request.plan.root.iter().filter_map(|op| match op {
        RootOp::UserMount { source, root_too, .. } => Some((source.as_str(), *root_too)),
        _ => None,
    });
    if paths.clone().count() != request.sources.len() {
        return Err(Fault::new("mount source", "descriptors", libc::EBADMSG));
    }
    if request.sources.is_empty() {
        return Ok(Vec::new());
    }
    host.enter()?;
    let trees = request
        .sources
        .iter()
        .zip(paths)
        .map(|(source, (path, root_too))| user_tree(source, path, root_too, host, ids, claim))
        .collect();
    if let Some(template) = template {
        crate::sys::namespace::enter(template, libc::CLONE_NEWNS).at("template", "enter")?;
    }
    trees
}

fn user_tree(
    source: &OwnedFd,
    path: &str,
    root_too: bool,
    host: &Host,
    ids: &mut Ids,
    claim: &Claim,
) -> Outcome<OwnedFd> {
    let tree = host.copy_tree(source.as_raw_fd(), path)?;
    if ids.range() && !ids.rootless() {
        let found = fd::stat(source.as_raw_fd()).at("mount source", path)?;
        let userns = ids.idmap(host, claim, (found.st_uid, found.st_gid), root_too)?.as_raw_fd();
        mount::set_attributes(tree.as_raw_fd(), mount::ATTR_IDMAP, Some(userns)).at("idmap", path)?;
    }
    Ok(tree)
}
