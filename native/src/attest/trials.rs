//! What a command may do, tried. Nothing stays of it, whatever succeeds.

use crate::sys::{self, fd, namespace, process, socket, Sys};
use std::os::fd::AsRawFd;

/// No number of any kernel's: x86-64 has some hundreds, and those of x32 begin at 2^30.
const NO_CALL: i64 = 1_000_000;
/// TEST-NET-1 (RFC 5737): an address that is nobody's, and this box's own.
const ELSEWHERE: [u8; 4] = [192, 0, 2, 1];
const HERE: [u8; 4] = [127, 0, 0, 1];
const DISCARD: u16 = 9;
/// In a machine, a file that everybody may read and no rule of Landlock's covers, which does not ask about O_PATH.
const UNCOVERED: &[u8] = b"/.immure/uncovered";

pub struct Paths {
    outside: Vec<u8>,
    inside: Vec<u8>,
    outside_by_root: Vec<u8>,
    inside_by_root: Vec<u8>,
}

impl Paths {
    pub fn new(outside: &[u8], inside: &[u8]) -> Paths {
        Paths {
            outside: outside.to_vec(),
            inside: inside.to_vec(),
            outside_by_root: [b"/proc/1/root", outside].concat(),
            inside_by_root: [b"/proc/self/root", inside].concat(),
        }
    }
}

type Trial = fn(&Paths) -> Sys<()>;

/// What a box refuses, each beside what differs in that alone and is allowed, where there is such a thing: the control.
pub const TRIALS: [(&str, Trial); 13] = [
    ("attempt/unknown_call", |_| call_nothing()),
    ("attempt/setuid_mode", |_| fd::chmod_at(libc::AT_FDCWD, "", libc::S_ISUID)),
    ("attempt/outside_file", |paths| open(&paths.outside, libc::O_RDONLY)),
    ("control/outside_file", |paths| open(&paths.inside, libc::O_RDONLY)),
    ("attempt/outside_by_root", |paths| open(&paths.outside_by_root, libc::O_RDONLY)),
    ("control/outside_by_root", |paths| open(&paths.inside_by_root, libc::O_RDONLY)),
    ("attempt/write_image", |paths| open(&paths.inside, libc::O_WRONLY)),
    ("control/write_image", |_| open(b"/dev/null", libc::O_WRONLY)),
    // Where there is no such file, both say so.
    ("attempt/uncovered", |_| open(UNCOVERED, libc::O_RDONLY)),
    ("control/uncovered", |_| open(UNCOVERED, libc::O_PATH)),
    ("attempt/network", |_| connect(ELSEWHERE)),
    ("control/network", |_| connect(HERE)),
    // The last one is not undone: whoever has tried it ends soon.
    ("attempt/user_namespace", |_| namespace::unshare(libc::CLONE_NEWUSER)),
];

/// No answer of a kernel's: the trial has not been made yet.
const NOT_YET: i32 = i32::MAX;

pub type Answers = Vec<(&'static str, i32)>;

/// Makes all trials.
pub fn run(paths: &Paths) -> Answers {
    let mut answers = [NOT_YET; TRIALS.len()];
    try_from(0, paths, &mut answers);
    named(&answers)
}

/// The same in a child: a filter may answer with a signal that ends it. Another child goes on after that one.
pub fn run_apart(paths: &Paths) -> Answers {
    // Children have this memory, and this process waits for them.
    let answers = &mut [NOT_YET; TRIALS.len()];
    while let Some(next) = answers.iter().position(|&answer| answer == NOT_YET) {
        // SAFETY: no other thread of this process runs, and where the child is ended in a call, nothing is lost but memory.
        let ended = unsafe {
            process::in_sharing_child(&mut || {
                try_from(next, paths, answers);
                Ok(())
            })
        };
        match answers.iter_mut().find(|answer| **answer == NOT_YET) {
            Some(answer) if ended < 0 => *answer = ended,
            // It could not even be made: nothing keeps a signal from this process then.
            Some(_) => try_from(next, paths, answers),
            None => {}
        }
    }
    named(answers)
}

fn named(answers: &[i32]) -> Answers {
    TRIALS.iter().map(|(name, _)| *name).zip(answers.iter().copied()).collect()
}

fn try_from(first: usize, paths: &Paths, answers: &mut [i32]) {
    for (place, (_, trial)) in TRIALS.iter().enumerate().skip(first) {
        let answer = trial(paths).err().unwrap_or(0);
        // SAFETY: a valid reference. Whoever reads it next is another process.
        unsafe { std::ptr::write_volatile(&mut answers[place], answer) };
    }
}

fn call_nothing() -> Sys<()> {
    // SAFETY: no memory is passed.
    sys::check(unsafe { libc::syscall(NO_CALL, 0, 0, 0, 0, 0, 0) }).map(drop)
}

fn open(path: &[u8], flags: i32) -> Sys<()> {
    // Whatever it is: without waiting for anybody, and without becoming a terminal's.
    fd::open(path, flags | libc::O_NONBLOCK | libc::O_NOCTTY).map(drop)
}

/// Of a datagram socket: nothing is sent.
fn connect(address: [u8; 4]) -> Sys<()> {
    let socket = socket::ip(libc::SOCK_DGRAM, 0)?;
    socket::connect(socket.as_raw_fd(), address, DISCARD)
}
