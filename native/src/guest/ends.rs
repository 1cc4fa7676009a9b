//! The streams of a command: pipes, or a terminal out of the box's own devpts; the command's ends and ours.

use crate::channel::frame::{Output, NO_INPUT, TERMINAL};
use crate::sys::{fd, terminal, Sys};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const TERMINAL_MODE: u32 = 0o620;

pub struct Ends {
    pub input: Option<OwnedFd>,
    pub outputs: Vec<(Output, OwnedFd)>,
    /// The command's, in the order of their numbers; without standard input where none comes.
    pub theirs: Vec<OwnedFd>,
}

impl Ends {
    /// `owner` is who is to own them, so that the command can open them anew, as /dev/stdout; `own` is who we are.
    pub fn open(flags: u16, columns: u16, rows: u16, owner: (u32, u32), own: u32) -> Sys<Ends> {
        let ends = match flags & TERMINAL {
            0 => pipes(flags & NO_INPUT == 0)?,
            _ => a_terminal(columns, rows)?,
        };
        match flags & TERMINAL {
            0 if owner.0 == own => {}
            0 => ends.give_pipes_to(owner)?,
            _ => ends.theirs.iter().try_for_each(|fd| give_terminal_to(fd, owner))?,
        }
        let mut ours = ends.input.iter().chain(ends.outputs.iter().map(|(_, fd)| fd));
        // They have no other flags.
        ours.try_for_each(|fd| fd::set_flags(fd.as_raw_fd(), libc::O_NONBLOCK))?;
        Ok(ends)
    }

    /// So that a command can open them anew, as /dev/stdout.
    pub fn give_pipes_to(&self, owner: (u32, u32)) -> Sys<()> {
        self.theirs.iter().try_for_each(|fd| fd::chown(fd.as_raw_fd(), owner.0, owner.1))
    }

    /// Standard input, output and error.
    pub fn stdio(&self, null: RawFd) -> [RawFd; 3] {
        match &self.theirs[..] {
            [one] => [one.as_raw_fd(); 3],
            [out, err] => [null, out.as_raw_fd(), err.as_raw_fd()],
            [input, out, err, ..] => [input.as_raw_fd(), out.as_raw_fd(), err.as_raw_fd()],
            [] => [null; 3],
        }
    }
}

fn pipes(with_input: bool) -> Sys<Ends> {
    let (mut theirs, mut input) = (Vec::new(), None);
    if with_input {
        let (reader, writer) = fd::pipe()?;
        theirs.push(reader);
        input = Some(writer);
    }
    let mut outputs = Vec::new();
    for which in [Output::Stdout, Output::Stderr] {
        let (reader, writer) = fd::pipe()?;
        theirs.push(writer);
        outputs.push((which, reader));
    }
    Ok(Ends { input, outputs, theirs })
}

fn a_terminal(columns: u16, rows: u16) -> Sys<Ends> {
    let (ours, theirs) = terminal::open()?;
    terminal::resize(ours.as_raw_fd(), columns, rows)?;
    let typed = fd::dup_high(ours.as_raw_fd())?;
    Ok(Ends { input: Some(typed), outputs: vec![(Output::Stdout, ours)], theirs: vec![theirs] })
}

fn give_terminal_to(fd: &OwnedFd, (uid, gid): (u32, u32)) -> Sys<()> {
    // A group that is another one matters only where it is asked for by somebody else.
    if fd::stat(fd.as_raw_fd())?.st_uid == uid {
        return Ok(());
    }
    // As a devpts of ours makes them; gVisor's are 0600. While it is still ours, or it would take CAP_FOWNER.
    fd::chmod(fd.as_raw_fd(), TERMINAL_MODE)?;
    fd::chown(fd.as_raw_fd(), uid, gid)
}
