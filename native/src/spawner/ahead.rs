//! What is made before anybody wants it: a network namespace, and the next box of a plan.

use super::unborn::Unborn;
use super::Spawner;
use crate::fault::{At, Outcome};
use crate::sys::namespace;

/// How long nobody has to want anything before the next step is taken.
const IDLE_MS: i32 = 1;

#[derive(Default)]
pub struct Ahead {
    /// The spawner stands in a network namespace that no box has had.
    pub network: bool,
    /// The next box of this plan, as far as it can be made without a request.
    unborn: Option<(u32, Unborn)>,
    /// The plan of the last box, and whether that of the one before was the same: then there will be another.
    last_plan: u32,
    repeated: bool,
    /// One has ended since: its user may want the next one.
    ended: bool,
    /// There may be something to make.
    due: bool,
}

impl Ahead {
    /// How long to wait for somebody who wants something: for ever, where there is nothing to do meanwhile.
    pub fn wait_ms(&self) -> i32 {
        if self.due {
            IDLE_MS
        } else {
            -1
        }
    }

    pub fn note_request(&mut self, plan: u32) {
        self.repeated = self.last_plan == plan;
        self.last_plan = plan;
    }

    /// Something that was made ahead is used, or what it lacked is there.
    pub fn look_again(&mut self) {
        self.due = true;
    }

    pub fn note_end(&mut self) {
        self.ended = true;
        self.due = true;
    }

    pub fn has_box(&self) -> bool {
        self.unborn.is_some()
    }

    pub fn take_of(&mut self, plan: u32) -> Option<Unborn> {
        self.unborn.take_if(|(of, _)| *of == plan).map(|(_, unborn)| unborn)
    }

    pub fn take_ended(&mut self, pid: i32) -> Option<Unborn> {
        self.unborn.take_if(|(_, unborn)| unborn.pid == pid).map(|(_, unborn)| unborn)
    }

    pub fn take(&mut self) -> Option<Unborn> {
        self.unborn.take().map(|(_, unborn)| unborn)
    }

    pub fn kill(&self) {
        if let Some((_, unborn)) = &self.unborn {
            unborn.kill();
        }
    }

    /// The plan whose next box is to be begun.
    fn wanted(&self) -> Option<u32> {
        let there = self.unborn.as_ref().is_some_and(|(of, _)| *of == self.last_plan);
        (self.repeated && self.ended && !there).then_some(self.last_plan)
    }
}

impl Spawner {
    /// Nobody has wanted anything for a while: takes one step, and may be asked for another. What fails here fails again
    /// for the box that needs it, and is told then.
    pub fn use_idle(&mut self) {
        let another = if self.ahead.network || self.host_network {
            self.begin_next()
        } else {
            self.make_network().map(|()| true)
        };
        self.ahead.due = another.unwrap_or(false);
    }

    /// Moves into a new network namespace, for the next box to be born in. Making one is the most costly part of a box,
    /// so it is done while nobody waits for it. No namespace is used twice.
    pub fn make_network(&mut self) -> Outcome<()> {
        if self.ahead.network || self.host_network {
            return Ok(());
        }
        namespace::unshare(libc::CLONE_NEWNET).at("network namespace", "unshare")?;
        namespace::loopback_up().at("network namespace", "lo")?;
        self.ahead.network = true;
        Ok(())
    }

    /// Begins the next box of a plan that was asked for twice in a row, with no range that others may need. True where that
    /// was done.
    fn begin_next(&mut self) -> Outcome<bool> {
        // The one that it takes the place of gives its range back. A bare box has nothing to make without a request.
        let ids = self.ids.at_hand() || self.ahead.has_box();
        let possible = |id: &u32| ids && self.plans.get(id).is_some_and(|plan| !plan.bare);
        let Some(id) = self.ahead.wanted().filter(possible) else {
            return Ok(false);
        };
        self.ahead.ended = false;
        self.give_up_next();
        let Some(plan) = self.plans.remove(&id) else {
            return Ok(false);
        };
        let begun = self.begin(&plan);
        self.plans.insert(id, plan);
        let unborn = begun?;
        unborn.go_on();
        self.ahead.unborn = Some((id, unborn));
        Ok(true)
    }

    pub fn give_up_next(&mut self) {
        if let Some(unborn) = self.ahead.take() {
            unborn.abandon(&mut self.ids);
        }
    }
}
