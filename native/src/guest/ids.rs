//! Ids of a guest's own, where its box's kernel has one that the host knows: the commands have that one, under the
//! names that they were promised, and the guest another, which is nobody's on the host.
//!
//! A kernel need not protect process 1: gVisor's lets a command of its user kill it.

use crate::fault::{At, Fault, Outcome};
use crate::plan::OwnIds;
use crate::sys::{fd, namespace, process, security, socket, Sys};
use std::os::fd::AsRawFd;

/// Makes a user namespace in which this process has all capabilities, and no command its id.
pub fn take(ids: &OwnIds) -> Outcome<()> {
    let (uid, gid) = process::effective_ids();
    let (ours, theirs) = socket::pair().at("identity", "maps")?;
    // SAFETY: this process has one thread.
    let Some(writer) = unsafe { process::fork() }.at("identity", "maps")? else {
        drop(ours);
        let written = write_when_told(theirs.as_raw_fd(), ids, (uid, gid));
        process::exit(written.err().unwrap_or(0))
    };
    drop(theirs);
    namespace::unshare(libc::CLONE_NEWUSER).at("identity", "user namespace")?;
    deny_setgroups().at("identity", "setgroups")?;
    socket::send(ours.as_raw_fd(), b".", &[]).at("identity", "maps")?;
    match process::wait(writer, 0).at("identity", "maps")? {
        Some((_, 0, _)) => {}
        Some((_, status, _)) if libc::WIFEXITED(status) => {
            return Err(Fault::new("identity", "maps", libc::WEXITSTATUS(status)));
        }
        _ => return Err(Fault::new("identity", "maps", libc::ECHILD)),
    }
    become_other(ids)
}

/// With one group there is none to drop, and no command is to try.
fn deny_setgroups() -> Sys<()> {
    match fd::write_file_at(libc::AT_FDCWD, "/proc/self/setgroups", b"deny") {
        // gVisor of 2024 has no such file.
        Err(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn become_other(ids: &OwnIds) -> Outcome<()> {
    become_ids(other_than(ids.user), other_than(ids.group))
}

/// Keeps all capabilities, also from user 0 to another.
pub fn become_ids(user: u32, group: u32) -> Outcome<()> {
    process::set_gid(group).at("identity", "guest gid")?;
    process::prctl(libc::PR_SET_KEEPCAPS, 1).at("identity", "keep capabilities")?;
    process::set_uid(user).at("identity", "guest uid")?;
    process::prctl(libc::PR_SET_KEEPCAPS, 0).at("identity", "keep capabilities")?;
    security::make_permitted_effective().at("identity", "guest capabilities")
}

/// What the guest is in its namespace. No number there is another's: two are mapped.
fn other_than(id: u32) -> u32 {
    u32::from(id == 0)
}

/// Two ids can be mapped only from outside of the namespace.
fn write_when_told(told: i32, ids: &OwnIds, (uid, gid): (u32, u32)) -> Sys<()> {
    if socket::receive(told, &mut [0; 8])?.is_none() {
        // The guest has no namespace.
        return Err(libc::ESRCH);
    }
    let parent = process::parent();
    let write = |file, inside, outside| {
        fd::write_file_at(libc::AT_FDCWD, &format!("/proc/{parent}/{file}"), map(inside, outside).as_bytes())
    };
    write("gid_map", ids.group, gid)?;
    write("uid_map", ids.user, uid)
}

fn map(inside: u32, outside: u32) -> String {
    format!("{inside} {outside} 1\n{} {} 1\n", other_than(inside), other_than(outside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_gives_the_guest_an_id_that_no_command_has() {
        assert_eq!(map(1000, 0), "1000 0 1\n0 1 1\n");
        assert_eq!(map(0, 0), "0 0 1\n1 1 1\n");
        assert_eq!(map(1000, 1000), "1000 1000 1\n0 0 1\n");
    }
}
