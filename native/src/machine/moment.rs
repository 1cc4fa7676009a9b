//! What a machine can't know by itself, and what copies of one must not share: the time, and randomness.

use crate::fault::{At, Fault, Outcome};
use crate::plan::Moment;
use crate::sys::{fd, process};
use std::os::fd::AsRawFd;

/// What the kernel wants before it gives any.
const LEAST_BYTES: usize = 32;

/// Sets the clock, and seeds the kernel's generator anew.
pub fn set(moment: &Moment) -> Outcome<()> {
    process::set_clock(moment.time_ns).at("clock", "realtime")?;
    if moment.entropy.len() < LEAST_BYTES {
        return Err(Fault::new("entropy", moment.entropy.len().to_string(), libc::EINVAL));
    }
    let random = fd::open("/dev/random", libc::O_RDWR).at("entropy", "/dev/random")?;
    fd::add_entropy(random.as_raw_fd(), &moment.entropy).at("entropy", "/dev/random")
}
