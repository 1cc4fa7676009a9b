//! Becomes a program that has more descriptors than a command's three. They come in one message on standard output, which
//! for this is a socket, and get the numbers from 3 on, in their order. With `1` beside them the first takes the place of
//! that socket.

use crate::fault::{At, Fault, Outcome};
use crate::init::command::{self, Command};
use crate::sys::{fd, socket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const FIRST: RawFd = 3;
/// What is sent beside them where the first is to be standard output.
const OUTPUT_TOO: &[u8] = b"1";
/// Above all numbers that are given.
const ASIDE: RawFd = 64;

/// Carries out `carry PROGRAM ARGUMENT…`. Gives the exit status where that can't be.
pub fn run(command: &Command) -> i32 {
    match carry(command) {
        Ok(fault) | Err(fault) => {
            eprintln!("immure-init: {fault}");
            1
        }
    }
}

/// Comes back with what execve said.
fn carry(command: &Command) -> Outcome<Fault> {
    let Some(program) = command.after_first() else {
        return Err(Fault::new("operation", "carry", libc::EINVAL));
    };
    let mut beside = [0];
    let message = socket::receive(1, &mut beside).at("receive", "descriptors")?;
    let (output_too, given) = message.map(|it| (it.data == OUTPUT_TOO, it.fds)).unwrap_or_default();
    if given.is_empty() || given.len() > (ASIDE - FIRST) as usize {
        return Err(Fault::new("receive", "descriptors", libc::EBADMSG));
    }
    let aside =
        given.iter().map(|one| fd::dup_from(one.as_raw_fd(), ASIDE)).collect::<Result<Vec<OwnedFd>, _>>();
    // Closed before their numbers are given to others.
    drop(given);
    let numbers = output_too.then_some(1).into_iter().chain(FIRST..);
    for (number, one) in numbers.zip(&aside.at("place", "descriptors")?) {
        fd::dup_to(one.as_raw_fd(), number).at("place", "descriptors")?;
    }
    Ok(command::execute(&program))
}
