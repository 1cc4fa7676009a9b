//! How KVM runs what a guest's kernel does: told by timing a loop at the highest privilege of a tiny guest.
//!
//! Where the processor virtualises, or something as quick stands in for it, a turn takes about a nanosecond. Where each
//! instruction is emulated it takes a thousand, whatever the processor's flags say.

use crate::fault::{At, Outcome};
use crate::sys::{fd, kvm};
use std::time::Instant;

const TURNS: u32 = 2048;
/// The first run of three also fills the guest's memory.
const RUNS: usize = 3;
const PAGE: usize = 4096;
/// A run that does not end takes the process with it.
const PATIENCE_S: u32 = 5;

/// Prints `turn_ns=N`, or `STEP=ERRNO` where it could not be timed.
pub fn run() {
    // SAFETY: no memory is passed; SIGALRM ends the process.
    unsafe { libc::alarm(PATIENCE_S) };
    match turn_ns() {
        Ok(time) => println!("turn_ns={time}"),
        Err(fault) => println!("{}={}", fault.step, fault.errno),
    }
}

fn turn_ns() -> Outcome<u64> {
    let kvm = kvm::open().at("open", "")?;
    let memory = fd::map_private(PAGE).at("machine", "")?;
    let program = program(TURNS);
    memory[..program.len()].copy_from_slice(&program);
    let machine = kvm::Machine::new(&kvm, memory).at("machine", "")?;
    let mut best = u128::MAX;
    for _ in 0..RUNS {
        let began = Instant::now();
        machine.run().at("run", "")?;
        best = best.min(began.elapsed().as_nanos());
    }
    Ok((best / u128::from(TURNS)) as u64)
}

/// mov ecx, turns; loop: dec ecx; jnz loop; hlt.
fn program(turns: u32) -> [u8; 9] {
    let [one, two, three, four] = turns.to_le_bytes();
    [0xB9, one, two, three, four, 0x49, 0x75, 0xFD, 0xF4]
}
