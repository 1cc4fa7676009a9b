//! The spawner: one small process with one thread that makes boxes for its owner and outlives neither the owner
//! nor leaves a box behind. It listens on one inherited socket.

mod ahead;
mod cell;
mod cgroup;
mod host;
mod ids;
mod inspection;
mod making;
mod template;
mod unborn;
mod witness;

use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::plan::{Config, Plan};
use crate::sys::poll::Poller;
use crate::sys::{fd, process, security, socket};
use ahead::Ahead;
use cell::Cell;
use cgroup::Parents;
use host::Host;
use ids::Ids;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Tokens of the poller below this are fixed; a box's are its number, doubled, plus one for its own socket.
const ENGINE: u64 = 0;
const SIGNALS: u64 = 1;
const PARENT: u64 = 2;
const FIRST_BOX: u64 = 4;

struct Spawner {
    engine: OwnedFd,
    signals: OwnedFd,
    own: OwnedFd,
    poller: Poller,
    host: Host,
    ids: Ids,
    cgroup_parents: Parents,
    plans: HashMap<u32, Plan>,
    templates: HashMap<Vec<u8>, OwnedFd>,
    /// The template whose namespace this process is in.
    current: Vec<u8>,
    cells: HashMap<u32, Cell>,
    next_box: u32,
    ahead: Ahead,
    host_network: bool,
}

/// Serves the socket `engine` until its other end is closed or the parent has died.
pub fn run(engine: RawFd) -> ! {
    // SAFETY: inherited, and used by nobody else.
    let engine = unsafe { OwnedFd::from_raw_fd(engine) };
    // Folders that mounts stand on are everybody's to enter, whatever our starter keeps for itself.
    // SAFETY: no memory is passed.
    unsafe { libc::umask(0o022) };
    // A copy to tell the end on, since the spawner's own goes with it.
    let Ok(told) = engine.try_clone() else {
        process::exit(1);
    };
    let fault = match Spawner::start(engine, told.as_raw_fd()) {
        Ok(mut spawner) => spawner.serve().err(),
        Err(fault) => Some(fault),
    };
    if let Some(fault) = &fault {
        // The owner may be gone; then nobody wants to know.
        let _ = socket::send(told.as_raw_fd(), &frame::fault(frame::FAILED, 0, fault), &[]);
    }
    process::exit(i32::from(fault.is_some()))
}

impl Spawner {
    fn start(engine: OwnedFd, told: RawFd) -> Outcome<Spawner> {
        process::set_name(c"immure-spawner");
        process::default_signals().at("signals", "")?;
        // What the owner let its children inherit is not ours to hold open.
        fd::close_all_but(&mut [0, 1, 2, engine.as_raw_fd(), told]).at("descriptors", "")?;
        // A forked child of the owner may hold the socket open, so the owner's own life is watched as well.
        // SAFETY: no memory is passed.
        let parent = process::open_pidfd(unsafe { libc::getppid() }).at("parent", "pidfd")?;
        let mut buffer = [0; frame::LIMIT];
        let first = socket::receive(engine.as_raw_fd(), &mut buffer).at("config", "")?;
        let message = first.ok_or_else(|| Fault::new("config", "", libc::EPIPE))?;
        let config: Config =
            decode(message.data, "config").map_err(|fault| with_beginning(fault, message.data))?;
        // Not every kernel has keyrings, and one that refuses has none that a box could reach.
        let _ = security::new_session_keyring("immure");
        let host_network = config.host_network;
        let cgroup_parents = Parents::open(&config.cgroups)?;
        let host = Host::open(&config)?;
        let signals = process::watch_signals().at("signals", "")?;
        let poller = Poller::new().at("poll", "")?;
        poller.add(engine.as_raw_fd(), ENGINE).at("poll", "engine")?;
        poller.add(signals.as_raw_fd(), SIGNALS).at("poll", "signals")?;
        poller.add(parent.as_raw_fd(), PARENT).at("poll", "parent")?;
        // Watched for as long as this process lives.
        std::mem::forget(parent);
        Ok(Spawner {
            engine,
            signals,
            own: process::open_pidfd(std::process::id() as i32).at("pidfd", "self")?,
            poller,
            host,
            ids: Ids::new(config, message.fds.into_iter().next()),
            cgroup_parents,
            plans: HashMap::new(),
            templates: HashMap::new(),
            current: Vec::new(),
            cells: HashMap::new(),
            next_box: 1,
            ahead: Ahead::default(),
            host_network,
        })
    }

    fn serve(&mut self) -> Outcome<()> {
        let mut ready = Vec::new();
        loop {
            self.poller.wait(&mut ready, self.ahead.wait_ms()).at("poll", "")?;
            if ready.is_empty() {
                self.use_idle();
            }
            // What a box said comes before the news that it has ended: sockets first, signals last.
            ready.sort_unstable_by(|one, other| other.cmp(one));
            for &token in &ready {
                match token {
                    PARENT => return self.end_all(),
                    SIGNALS => {
                        process::drain_signals(self.signals.as_raw_fd());
                        self.reap()?;
                    }
                    ENGINE => {
                        if !self.hear_engine()? {
                            return self.end_all();
                        }
                    }
                    _ if token % 2 == 0 => self.hear_owner(((token - FIRST_BOX) / 2) as u32)?,
                    _ => self.hear_box(((token - FIRST_BOX) / 2) as u32),
                }
            }
        }
    }

    /// False at the end of the owner's socket.
    fn hear_engine(&mut self) -> Outcome<bool> {
        let mut buffer = [0; frame::LIMIT];
        let Some(message) = socket::receive(self.engine.as_raw_fd(), &mut buffer).at("request", "")? else {
            return Ok(false);
        };
        let Some((header, rest)) = frame::split(message.data) else {
            return Err(Fault::new("request", "header", libc::EBADMSG));
        };
        match header.kind {
            frame::PLAN => self.load_plan(&header, rest, &message.fds)?,
            frame::BOX => self.make_box(&header, message.fds)?,
            kind => return Err(Fault::new("request", kind.to_string(), libc::EBADMSG)),
        }
        Ok(true)
    }

    fn load_plan(&mut self, header: &frame::Header, rest: &[u8], fds: &[OwnedFd]) -> Outcome<()> {
        let content = match fds.first() {
            Some(file) => fd::read_all(file.as_raw_fd()).at("plan", "file")?,
            None => rest.to_vec(),
        };
        let plan: Plan = decode(&content, "plan")?;
        self.get_ready(&plan);
        self.plans.insert(header.id, plan);
        Ok(())
    }

    /// A plan is followed by a request for a box, so what boxes share is made while the engine goes on. What fails here
    /// fails again for the box, and is told then.
    fn get_ready(&mut self, plan: &Plan) {
        if plan.spare_network {
            let _ = self.make_network();
        }
        if !plan.bare {
            let _ = self.enter_template(plan);
        }
    }

    fn hear_owner(&mut self, id: u32) -> Outcome<()> {
        let Some(cell) = self.cells.get_mut(&id) else {
            return Ok(());
        };
        let mut buffer = [0; 64];
        let message = socket::receive(cell.owner.as_raw_fd(), &mut buffer).ok().flatten();
        let kind = message.and_then(|message| frame::split(message.data).map(|(header, _)| header.kind));
        if kind == Some(frame::RELEASE) && cell.inspected {
            cell.release();
            // A box for one command is gone soon, and its end should not have to wait for this.
            if !cell.one_shot {
                self.ahead.look_again();
            }
            return Ok(());
        }
        if kind != Some(frame::KILL) {
            // Closed, or nonsense: the box ends and nobody listens.
            self.poller.remove(cell.owner.as_raw_fd());
        }
        cell.kill();
        Ok(())
    }

    fn reap(&mut self) -> Outcome<()> {
        while let Some((pid, status, usage)) =
            process::wait(-1, libc::WNOHANG | libc::__WALL).at("wait", "")?
        {
            if let Some(unborn) = self.ahead.take_ended(pid) {
                unborn.bury(&mut self.ids);
                continue;
            }
            let found = self.cells.values().find(|cell| {
                cell.pid == pid || cell.witness.as_ref().is_some_and(|witness| witness.pid == pid)
            });
            let Some((id, own)) = found.map(|cell| (cell.id, cell.pid == pid)) else {
                continue;
            };
            if own {
                self.end(id, status, &usage);
                self.ahead.note_end();
            } else {
                self.witness_changed(id, pid, status)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, id: u32, status: i32, usage: &libc::rusage) {
        let Some(cell) = self.cells.remove(&id) else {
            return;
        };
        // A clone of a moment ago may still hold copies, so that closing ours would not end the watch.
        self.poller.remove(cell.owner.as_raw_fd());
        let micros = |time: libc::timeval| (time.tv_sec as u64) * 1_000_000 + time.tv_usec as u64;
        let mut data = frame::header(frame::ENDED, 0, 0);
        data.extend(status.to_le_bytes());
        data.extend((micros(usage.ru_utime) + micros(usage.ru_stime)).to_le_bytes());
        data.extend((usage.ru_maxrss as u64).to_le_bytes());
        cell.cgroups.put_counters(&mut data);
        cell.cgroups.remove();
        self.ids.release(&cell.claim, usize::from(self.ahead.has_box()));
        tell(&cell.owner, &data, &[]);
    }

    fn end_all(&mut self) -> Outcome<()> {
        for cell in self.cells.values() {
            cell.kill();
        }
        self.ahead.kill();
        // All children, since a witness under inspection keeps its box from ending until it is reaped here.
        while process::wait(-1, libc::__WALL).at("wait", "")?.is_some() {}
        for cell in self.cells.values() {
            cell.cgroups.remove();
        }
        if let Some(unborn) = self.ahead.take() {
            unborn.bury(&mut self.ids);
        }
        Ok(())
    }
}

/// The owner may be gone; its end of the socket says so, and nothing here depends on its hearing us.
fn tell(owner: &OwnedFd, data: &[u8], fds: &[RawFd]) {
    let _ = socket::send(owner.as_raw_fd(), data, fds);
}

/// What was there instead of what was awaited.
fn with_beginning(fault: Fault, data: &[u8]) -> Fault {
    let beginning = &data[..data.len().min(16)];
    Fault { object: format!("{}: {} bytes, {beginning:02x?}", fault.object, data.len()), ..fault }
}

fn decode<T: serde::de::DeserializeOwned>(content: &[u8], what: &'static str) -> Outcome<T> {
    rmp_serde::from_slice(content).map_err(|error| Fault::new(what, error.to_string(), libc::EBADMSG))
}
