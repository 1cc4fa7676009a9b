//! The last stage: what a command's own process does between its start and its execve, in this order. It shares the
//! stem's memory, so it allocates nothing on the way to a successful execve.

use crate::fault::{At, Fault, Outcome};
use crate::frame;
use crate::plan::CommandStage;
use crate::sys::{self, fd, process, security, socket};
use std::ffi::{c_char, CStr};
use std::os::fd::RawFd;

/// What a command is: strings of the request's own buffer, each with its NUL.
pub struct Command<'a> {
    pub uid: u32,
    pub gid: u32,
    pub workdir: &'a CStr,
    pub argv: Vec<*const c_char>,
    pub env: Vec<*const c_char>,
    pub path: &'a [u8],
}

impl Command<'_> {
    /// Whether it is over so soon, and says so little, that whoever starts it can wait for its end, as for an execve:
    /// then nothing need be copied.
    pub fn is_short(&self) -> bool {
        // SAFETY: a C string of the request; there is one at least.
        unsafe { CStr::from_ptr(self.argv[0]) }.to_bytes() == b"attest"
    }

    /// The command that its arguments are.
    pub fn after_first(&self) -> Option<Command<'_>> {
        let argv = self.argv.get(1..).filter(|rest| rest.len() > 1)?.to_vec();
        let env = self.env.clone();
        Some(Command { uid: self.uid, gid: self.gid, workdir: self.workdir, argv, env, path: self.path })
    }

    /// Does what it names itself, without a program.
    pub fn carry_out(&self) -> i32 {
        let arguments = self.argv.iter().take_while(|argument| !argument.is_null());
        // SAFETY: C strings of the request.
        let arguments: Vec<&[u8]> =
            arguments.map(|argument| unsafe { CStr::from_ptr(*argument) }.to_bytes()).collect();
        match arguments.first() {
            Some(&b"attest") => crate::attest::run(&arguments),
            Some(&b"listen") => crate::listen::run(&arguments),
            Some(&b"connect") => crate::connect::run(&arguments),
            Some(&b"carry") => crate::carry::run(self),
            _ => crate::files::run(&arguments),
        }
    }
}

/// `u32 uid, gid, argc, envc`, then working directory, PATH, argv and environment, each with a NUL.
pub fn parse(mut payload: &[u8]) -> Option<Command<'_>> {
    let rest = &mut payload;
    let (uid, gid) = (frame::take_u32(rest)?, frame::take_u32(rest)?);
    let (argc, envc) = (frame::take_u32(rest)?, frame::take_u32(rest)?);
    let workdir = take_cstr(rest)?;
    let path = frame::take_string(rest)?;
    let argv = take_vector(rest, argc)?;
    let env = take_vector(rest, envc)?;
    (argc > 0).then_some(Command { uid, gid, workdir, argv, env, path })
}

fn take_cstr<'a>(rest: &mut &'a [u8]) -> Option<&'a CStr> {
    let text = CStr::from_bytes_until_nul(rest).ok()?;
    *rest = &rest[text.to_bytes_with_nul().len()..];
    Some(text)
}

/// Pointers to `count` strings, and the null pointer that ends a vector.
fn take_vector(rest: &mut &[u8], count: u32) -> Option<Vec<*const c_char>> {
    let mut vector = Vec::new();
    for _ in 0..count {
        vector.push(take_cstr(rest)?.as_ptr());
    }
    vector.push(std::ptr::null());
    Some(vector)
}

/// Where a command's process leaves word when it can't go on; a page shared with the stem, since a filter may
/// already refuse every other way.
#[repr(C)]
pub struct Slot {
    pub errno: i32,
    pub step: u32,
}

/// Steps as numbers, for `Slot`. `runtimes/process/frames.py` has the same list.
const STEPS: [&str; 13] = [
    "",
    "exec",
    "stdio",
    "signals",
    "session",
    "workdir",
    "rlimit",
    "capabilities",
    "identity",
    "no_new_privs",
    "seccomp",
    "witness",
    "paused",
];

/// In `STEPS`: the stage was not begun, since its box is paused.
pub const PAUSED: u32 = 12;

/// The parts of a stage that `Slot` can carry: the fault's step is one of `STEPS`.
pub fn leave_word(slot: *mut Slot, fault: &Fault) {
    let step = STEPS.iter().position(|&name| name == fault.step).unwrap_or(0);
    // SAFETY: the slot is ours until the stem has reaped us.
    unsafe {
        (*slot).step = step as u32;
        std::ptr::write_volatile(&mut (*slot).errno, fault.errno);
    }
}

/// Standard descriptors in place, everything else closed but `keep`, which exec closes.
pub fn take_stdio(stdio: [RawFd; 3], keep: [Option<RawFd>; 2]) -> Outcome<()> {
    // The stem's own stand under the standard numbers, so that none of these can be in another's way.
    for (number, original) in stdio.into_iter().enumerate() {
        fd::dup_to(original, number as RawFd).at("stdio", "")?;
    }
    fd::close_all_but(&mut [0, 1, 2, keep[0].unwrap_or(2), keep[1].unwrap_or(2)]).at("stdio", "")
}

/// Standard input becomes the controlling terminal of the new session.
pub fn take_terminal() -> Outcome<()> {
    // SAFETY: the argument is a number.
    sys::check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } as i64).at("stdio", "").map(drop)
}

pub fn enter_workdir(path: &CStr) -> Outcome<()> {
    // SAFETY: a C string.
    sys::check(unsafe { libc::chdir(path.as_ptr()) } as i64).at("workdir", "")?;
    let mut buffer = [0u8; 4096];
    // SAFETY: `buffer` is valid for writing. A folder outside the root reads "(unreachable)/…".
    let length = sys::check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })
        .at("workdir", "")?;
    if length < 2 || buffer[0] != b'/' {
        return Err(Fault::new("workdir", "", libc::EXDEV));
    }
    Ok(())
}

/// The bounding set, which every command inherits from init: a system call for each capability is too many to make for
/// each command.
pub fn drop_bounding_set(stage: &CommandStage) -> Outcome<()> {
    for capability in 0..64 {
        let bit = 1u64 << capability;
        if stage.known_capabilities & bit != 0 && stage.keep_capabilities & bit == 0 {
            process::prctl(libc::PR_CAPBSET_DROP, capability).at("capabilities", "bounding set")?;
        }
    }
    Ok(())
}

/// What commands inherit from the stem, which needs none of it itself: each of these would cost every command a call.
pub fn prepare_for_commands(stage: &CommandStage, drop_groups: bool) -> Outcome<()> {
    // SAFETY: no memory is passed.
    unsafe { libc::umask(stage.umask) };
    if stage.securebits != 0 {
        process::prctl(libc::PR_SET_SECUREBITS, stage.securebits).at("capabilities", "securebits")?;
    }
    if drop_groups {
        process::drop_groups().at("identity", "groups")?;
    }
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).at("no_new_privs", "").map(drop)
}

pub fn set_limits(stage: &CommandStage) -> Outcome<()> {
    let mut limits = stage.rlimits.iter();
    limits.try_for_each(|&(resource, soft, hard)| process::set_limit(resource, soft, hard).at("rlimit", ""))
}

pub fn give_up_privileges(stage: &CommandStage, command: &Command) -> Outcome<()> {
    if stage.keep_capabilities != 0 {
        // Where a change of user takes them from one that was 0; what is not kept goes below.
        process::prctl(libc::PR_SET_KEEPCAPS, 1).at("capabilities", "keep")?;
    }
    process::set_gid(command.gid).at("identity", "")?;
    process::set_uid(command.uid).at("identity", "")?;
    raise_ambient(stage, command.uid)?;
    security::set_capabilities(stage.keep_capabilities, stage.keep_capabilities).at("capabilities", "sets")
}

/// Kept capabilities survive execve of a user other than root only as ambient ones.
fn raise_ambient(stage: &CommandStage, uid: u32) -> Outcome<()> {
    if stage.keep_capabilities == 0 {
        return Ok(());
    }
    security::make_inheritable(stage.keep_capabilities).at("capabilities", "inheritable")?;
    for capability in (0..64u64).filter(|bit| stage.keep_capabilities >> bit & 1 != 0) {
        // SAFETY: no memory is passed.
        let raised = sys::check(unsafe {
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0u64, 0u64)
        } as i64);
        match raised {
            // gVisor of 2024 has none. Root gets what the bounding set leaves.
            Err(libc::EINVAL) if uid == 0 => return Ok(()),
            other => other.at("capabilities", "ambient")?,
        };
    }
    Ok(())
}

/// Shows itself to the spawner, which attaches while this process goes on.
pub fn announce(ctl: RawFd, report: &[u8]) -> Outcome<()> {
    socket::send(ctl, report, &[]).at("witness", "")
}

/// Waits until the spawner has attached.
pub fn wait_for_tracer(ctl: RawFd) -> Outcome<()> {
    match socket::receive(ctl, &mut [0; 64]).at("witness", "")? {
        Some(_) => Ok(()),
        None => Err(Fault::new("witness", "", libc::EPIPE)),
    }
}

/// The filters that the stem can bear itself. Commands inherit them.
pub fn install_inherited_filters(stage: &CommandStage) -> Outcome<()> {
    stage.filters.iter().take(stage.inherited_filters).try_for_each(|filter| install(filter, 0))
}

/// The others. They may refuse any call, so nothing but execve comes after them.
pub fn install_own_filters(stage: &CommandStage) -> Outcome<()> {
    let last = stage.filters.len().wrapping_sub(1);
    for (index, filter) in stage.filters.iter().enumerate().skip(stage.inherited_filters) {
        install(filter, if index == last { stage.listener_flags } else { 0 })?;
    }
    Ok(())
}

fn install(filter: &serde_bytes::ByteBuf, flags: u32) -> Outcome<()> {
    security::install_filter(filter, flags).at("seccomp", "")
}

/// Has the listener of the filter that is installed next sent to `asker`. Under that filter every call waits for
/// whoever has the listener, so a process without the filter sends it: one that shares our descriptors.
pub fn pass_listener(asker: RawFd) -> Outcome<()> {
    let number = fd::lowest_free().at("seccomp", "listener")?;
    // SAFETY: a copy of a process with one thread.
    match unsafe { process::fork_beside() }.at("seccomp", "listener")? {
        Some(_) => Ok(()),
        None => send_when_there(asker, number),
    }
}

fn send_when_there(asker: RawFd, number: RawFd) -> ! {
    // A plain user's witness is dumpable, and this process has no filter: nobody may take it over.
    if process::prctl(libc::PR_SET_DUMPABLE, 0).is_err() {
        process::exit(1);
    }
    let message = frame::header(frame::LISTENER, 0, 0);
    let mut watch = [libc::pollfd { fd: asker, events: 0, revents: 0 }];
    while socket::send(asker, &message, &[number]) == Err(libc::EBADF) {
        // Nobody is left to send it to, or to wait for.
        if fd::poll(&mut watch, 1) != Ok(0) {
            break;
        }
    }
    process::exit(0)
}

/// Stops for the spawner's inspection. A trap needs no system call, so no filter can be in its way.
pub fn wait_for_inspection() {
    // SAFETY: the tracer suppresses the signal; without a tracer the process ends, as it should.
    unsafe { std::arch::asm!("int3") };
}

/// execve, along PATH for a name without a slash. Returns only with what went wrong.
pub fn execute(command: &Command) -> Fault {
    // SAFETY: the first pointer is a C string of the request.
    let name = unsafe { CStr::from_ptr(command.argv[0]) };
    let bytes = name.to_bytes();
    if bytes.is_empty() || bytes.contains(&b'/') {
        return Fault::new("exec", "", exec(name, command));
    }
    let mut worst = libc::ENOENT;
    let mut buffer = [0u8; 4352];
    for folder in command.path.split(|&byte| byte == b':') {
        let Some(candidate) = join(&mut buffer, folder, bytes) else {
            continue;
        };
        match exec(candidate, command) {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = libc::EACCES,
            errno => return Fault::new("exec", "", errno),
        }
    }
    Fault::new("exec", "", worst)
}

/// `folder/name` as a C string in `buffer`. None where it is too long for the kernel anyway.
fn join<'a>(buffer: &'a mut [u8], folder: &[u8], name: &[u8]) -> Option<&'a CStr> {
    let folder = if folder.is_empty() { b"." } else { folder };
    let end = folder.len() + 1 + name.len();
    buffer.get_mut(..folder.len())?.copy_from_slice(folder);
    *buffer.get_mut(folder.len())? = b'/';
    buffer.get_mut(folder.len() + 1..end)?.copy_from_slice(name);
    *buffer.get_mut(end)? = 0;
    CStr::from_bytes_until_nul(&buffer[..=end]).ok()
}

fn exec(path: &CStr, command: &Command) -> i32 {
    // SAFETY: both vectors end with a null pointer and point into the request's buffer.
    unsafe { libc::execve(path.as_ptr(), command.argv.as_ptr(), command.env.as_ptr()) };
    sys::errno()
}
