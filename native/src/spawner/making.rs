//! From a request to a box that is under way.

use super::cell::{Cell, Request};
use super::unborn::{self, Unborn};
use super::{tell, template, Spawner, FIRST_BOX};
use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::plan::Plan;
use crate::sys::{namespace, process};
use std::os::fd::{AsRawFd, OwnedFd};

impl Spawner {
    /// The id is the plan's. Descriptors: the owner's socket, the stem's socket, the mounts' sources.
    pub fn make_box(&mut self, header: &frame::Header, fds: Vec<OwnedFd>) -> Outcome<()> {
        let bad = || Fault::new("request", "box", libc::EBADMSG);
        let plan = self.plans.remove(&header.id).ok_or_else(bad)?;
        let mut fds = fds.into_iter();
        let (owner, engine) = (fds.next().ok_or_else(bad)?, fds.next().ok_or_else(bad)?);
        let sources = fds.collect();
        let one_shot = header.flags & frame::ONE_SHOT != 0;
        let request = Request { one_shot, owner, engine, sources, plan: &plan };
        let outcome = self.make_cell(header.id, request);
        self.plans.insert(header.id, plan);
        self.ahead.note_request(header.id);
        if let Err((owner, fault)) = outcome {
            tell(&owner, &frame::fault(frame::FAILED, 0, &fault), &[]);
        }
        Ok(())
    }

    /// A fault comes with the owner's socket, so that it can be told.
    fn make_cell(&mut self, plan: u32, request: Request) -> Result<(), (OwnedFd, Fault)> {
        // One that was made ahead may have ended before it was wanted.
        let ahead = self.ahead.take_of(plan).map(|unborn| self.hand_over(unborn, &request));
        let made = match ahead {
            Some(Ok(unborn)) => Ok(unborn),
            _ => self.begin_at_any_rate(request.plan).and_then(|unborn| self.hand_over(unborn, &request)),
        };
        match made {
            Ok(unborn) => self.watch(unborn.born(request)),
            Err(fault) => return Err((request.owner, fault)),
        }
        Ok(())
    }

    /// What is nobody's must not be in the way of what somebody wants: of a range, of a number of processes …
    fn begin_at_any_rate(&mut self, plan: &Plan) -> Outcome<Unborn> {
        let begun = self.begin(plan);
        if begun.is_ok() || !self.ahead.has_box() {
            return begun;
        }
        self.give_up_next();
        self.begin(plan)
    }

    /// Begins a box of this plan.
    pub fn begin(&mut self, plan: &Plan) -> Outcome<Unborn> {
        let id = self.next_box;
        self.next_box += 1;
        let name = format!("immure-{}-{id}", std::process::id());
        if plan.spare_network && self.host_network {
            return Err(Fault::new("network namespace", "spare", libc::EINVAL));
        }
        if plan.spare_network {
            self.make_network()?;
        }
        if !plan.bare {
            self.enter_template(plan)?;
        }
        let cgroups = self.cgroup_parents.make(&name, &plan.cgroup)?;
        // Whatever is born here without a network namespace of its own has used this one.
        self.ahead.network &= plan.namespaces & libc::CLONE_NEWNET != 0;
        unborn::begin(id, plan, &self.host, &mut self.ids, self.own.as_raw_fd(), cgroups)
    }

    fn hand_over(&mut self, unborn: Unborn, request: &Request) -> Outcome<Unborn> {
        let template = self.templates.get(&self.current).map(|namespace| namespace.as_raw_fd());
        match unborn.order(request, &self.host, template, &mut self.ids) {
            Ok(()) => Ok(unborn),
            Err(fault) => {
                unborn.abandon(&mut self.ids);
                Err(fault)
            }
        }
    }

    fn watch(&mut self, made: Cell) {
        let token = FIRST_BOX + 2 * u64::from(made.id);
        let watched = self.poller.add(made.owner.as_raw_fd(), token).and_then(|()| {
            let ctl = made.ctl.as_ref().map_or(-1, |ctl| ctl.as_raw_fd());
            self.poller.add(ctl, token + 1)
        });
        if watched.is_err() {
            let _ = process::send_signal(made.pidfd.as_raw_fd(), libc::SIGKILL);
        }
        self.cells.insert(made.id, made);
    }

    pub fn enter_template(&mut self, plan: &Plan) -> Outcome<()> {
        let key = plan.template_key.to_vec();
        if self.current == key {
            return Ok(());
        }
        if let Some(namespace) = self.templates.get(&key) {
            namespace::enter(namespace.as_raw_fd(), libc::CLONE_NEWNS).at("template", "enter")?;
        } else {
            // A template that fails half-way leaves us in no namespace that we know.
            self.current.clear();
            let namespace = template::build(&plan.template, &self.host)?;
            self.templates.insert(key.clone(), namespace);
        }
        self.current = key;
        Ok(())
    }
}
