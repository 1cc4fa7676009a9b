//! Ranges of ids: one for each box, claimed by a lock on one byte of a file that all spawners share.

use super::host::Host;
use crate::fault::{At, Fault, Outcome};
use crate::plan::{Config, IdSource};
use crate::sys::{fd, process};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};

/// Namespaces for idmapped mounts that are kept for the next box: one for each range and owner.
const MOST_IDMAPS: usize = 24;

/// Of this many ranges a spawner keeps one for its next boxes; the others are for all spawners of the user.
const RANGES_PER_KEPT: u32 = 64;

pub struct Ids {
    source: IdSource,
    caller: (u32, u32),
    rootless: bool,
    lock: Option<OwnedFd>,
    /// Ranges that this spawner has locked and no box uses. The last one given back is taken first, since its
    /// idmap namespaces exist.
    free: Vec<u32>,
    /// All ranges that this spawner has locked. Its own locks don't stand in its way, so it has to know.
    locked: HashSet<u32>,
    next: u32,
    idmaps: HashMap<(u32, u32, u32, u32, u32, bool), OwnedFd>,
}

/// The ids of one box, as its maps' text.
pub struct Claim {
    pub slot: Option<u32>,
    pub uid_map: String,
    pub gid_map: String,
    host_user: u32,
    host_group: u32,
    /// What the box's id 0 is on the host.
    host_root: (u32, u32),
}

impl Claim {
    /// What the box's user and group are on the host.
    pub fn host_ids(&self) -> (u32, u32) {
        (self.host_user, self.host_group)
    }
}

impl Ids {
    pub fn new(config: Config, lock: Option<OwnedFd>) -> Ids {
        Ids {
            source: config.ids,
            caller: (config.caller_uid, config.caller_gid),
            rootless: config.rootless,
            lock,
            free: Vec::new(),
            locked: HashSet::new(),
            next: std::process::id().wrapping_mul(2_654_435_761),
            idmaps: HashMap::new(),
        }
    }

    pub fn rootless(&self) -> bool {
        self.rootless
    }

    pub fn range(&self) -> bool {
        matches!(self.source, IdSource::Ranges { .. })
    }

    pub fn claim(&mut self, user: u32, group: u32) -> Outcome<Claim> {
        let (own_uid, own_gid) = self.caller;
        let IdSource::Ranges { base_uid, base_gid, size, slots, .. } = self.source else {
            return Ok(Claim {
                slot: None,
                uid_map: format!("{user} {own_uid} 1"),
                gid_map: format!("{group} {own_gid} 1"),
                host_user: own_uid,
                host_group: own_gid,
                host_root: (own_uid, own_gid),
            });
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.lock_range(slots)?,
        };
        let (uids, gids) = (base_uid + slot * size, base_gid + slot * size);
        // A plain user's own files are reached by mapping the caller; as root they are reached by idmapped mounts.
        let own = |id: u32| self.rootless.then_some(id);
        let (uid_map, host_user) = map_of(uids, size, user, own(own_uid));
        let (gid_map, host_group) = map_of(gids, size, group, own(own_gid));
        Ok(Claim { slot: Some(slot), uid_map, gid_map, host_user, host_group, host_root: (uids, gids) })
    }

    /// A box can be begun without taking a range that others may need.
    pub fn at_hand(&self) -> bool {
        !self.range() || !self.free.is_empty()
    }

    /// Gives a range back. Its box is gone, and with it every process that had its ids.
    ///
    /// `others` are those that are kept elsewhere for the next boxes.
    pub fn release(&mut self, claim: &Claim, others: usize) {
        let (Some(slot), IdSource::Ranges { slots, .. }) = (claim.slot, &self.source) else {
            return;
        };
        if self.free.len() + others >= (slots / RANGES_PER_KEPT).max(1) as usize && self.unlock(slot) {
            return;
        }
        self.free.push(slot);
    }

    /// False where the range stays ours.
    fn unlock(&mut self, slot: u32) -> bool {
        let Some(lock) = &self.lock else {
            return false;
        };
        let unlocked = fd::lock_byte(lock.as_raw_fd(), slot.into(), libc::F_UNLCK) == Ok(true);
        if unlocked {
            self.locked.remove(&slot);
        }
        unlocked
    }

    fn lock_range(&mut self, slots: u32) -> Outcome<u32> {
        let lock = self.lock.as_ref().ok_or_else(|| Fault::new("id range", "lock file", libc::EBADF))?;
        // Spawners begin at different places, so that they seldom meet.
        let begin = self.next % slots;
        for slot in (begin..slots).chain(0..begin).filter(|slot| !self.locked.contains(slot)) {
            if fd::lock_byte(lock.as_raw_fd(), slot.into(), libc::F_WRLCK).at("id range", "lock")? {
                self.locked.insert(slot);
                self.next = slot + 1;
                return Ok(slot);
            }
        }
        Err(Fault::new("id range", format!("{slots} ranges"), libc::EUSERS))
    }

    /// A user namespace for an idmapped mount: the owner on disk is the box's user, and nobody else is anybody; but for
    /// the box's id 0 with `root_too`, which is itself on disk, and so none of the host.
    pub fn idmap(
        &mut self,
        host: &Host,
        claim: &Claim,
        disk: (u32, u32),
        root_too: bool,
    ) -> Outcome<&OwnedFd> {
        let key = (claim.host_user, claim.host_group, disk.0, disk.1, claim.slot.unwrap_or(0), root_too);
        if self.idmaps.len() >= MOST_IDMAPS && !self.idmaps.contains_key(&key) {
            // Mounts that were made with them keep them alive.
            self.idmaps.clear();
        }
        match self.idmaps.entry(key) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(place) => {
                let root = |id| Some(id).filter(|_| root_too);
                let uid_map = idmap_of(disk.0, claim.host_user, root(claim.host_root.0));
                let gid_map = idmap_of(disk.1, claim.host_group, root(claim.host_root.1));
                Ok(place.insert(make_namespace(host, &uid_map, &gid_map)?))
            }
        }
    }
}

fn idmap_of(disk: u32, user: u32, root: Option<u32>) -> String {
    match root {
        Some(root) if root != user && root != disk => format!("{disk} {user} 1\n{root} {root} 1"),
        _ => format!("{disk} {user} 1"),
    }
}

/// The map's lines, and what the box's user is on the host.
fn map_of(base: u32, size: u32, user: u32, own: Option<u32>) -> (String, u32) {
    let Some(own) = own else {
        return (format!("0 {base} {size}"), base + user);
    };
    let mut lines = vec![format!("{user} {own} 1")];
    if user > 0 {
        lines.push(format!("0 {base} {}", user.min(size)));
    }
    if user + 1 < size {
        lines.push(format!("{} {} {}", user + 1, base + user + 1, size - user - 1));
    }
    (lines.join("\n"), own)
}

fn make_namespace(host: &Host, uid_map: &str, gid_map: &str) -> Outcome<OwnedFd> {
    let spawner = std::process::id() as i32;
    // SAFETY: the spawner has one thread.
    let Some((pid, pidfd)) = unsafe { process::clone(libc::CLONE_NEWUSER) }.at("idmap", "clone")? else {
        // A spawner that is killed now ends it no more.
        if process::die_with_parent(spawner).is_err() {
            process::exit(1);
        }
        loop {
            // SAFETY: no memory is passed.
            unsafe { libc::pause() };
        }
    };
    let made = host.write_maps(pid, uid_map, gid_map).and_then(|()| {
        fd::open_at(host.proc_dir(), format!("{pid}/ns/user"), libc::O_RDONLY, 0).at("idmap", "namespace")
    });
    process::send_signal(pidfd.as_raw_fd(), libc::SIGKILL).at("idmap", "kill")?;
    process::wait(pid, 0).at("idmap", "wait")?;
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idmap_has_no_id_twice() {
        assert_eq!(idmap_of(0, 5_001_000, None), "0 5001000 1");
        assert_eq!(idmap_of(0, 5_001_000, Some(5_000_000)), "0 5001000 1\n5000000 5000000 1");
        assert_eq!(idmap_of(0, 5_000_000, Some(5_000_000)), "0 5000000 1");
        assert_eq!(idmap_of(5_000_000, 5_001_000, Some(5_000_000)), "5000000 5001000 1");
    }
}
