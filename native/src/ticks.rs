//! How quickly the processor's counter of ticks runs: what an emulated one of QEMU's shows is the same.

use std::arch::x86_64::_rdtsc;
use std::time::{Duration, Instant};

const ROUND: Duration = Duration::from_millis(20);
const ROUNDS: usize = 5;

/// Prints it in kHz.
pub fn run() {
    let mut found: [u64; ROUNDS] = std::array::from_fn(|_| measure());
    // Some may have been interrupted between a look at one clock and at the other.
    found.sort_unstable();
    println!("{}", found[ROUNDS / 2]);
}

fn measure() -> u64 {
    let (clock, first) = (Instant::now(), ticks());
    std::thread::sleep(ROUND);
    let (last, passed) = (ticks(), clock.elapsed());
    (u128::from(last.wrapping_sub(first)) * 1_000_000 / passed.as_nanos().max(1)) as u64
}

fn ticks() -> u64 {
    // SAFETY: every processor of this architecture has it.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_processor_s() {
        assert!((100_000..10_000_000).contains(&measure()));
    }
}
