//! What files hold.

use super::{open_regular, standard, trouble, Step, Trouble, Work};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const CHUNK: usize = 256 * 1024;
/// path_resolution(7).
const MOST_LINKS: usize = 40;

/// `length` bytes from `offset` on, or as many as there are.
pub fn read(path: &Path, offset: u64, length: u64) -> Work<()> {
    let (mut file, _) = open_regular(path, OpenOptions::new().read(true), 0)?;
    if offset > 0 {
        file.seek(SeekFrom::Start(offset)).step("seek")?;
    }
    copy(&mut file.take(length), &mut *standard(1)).map(drop)
}

/// Flags: `p` makes the folders above, `n` refuses a file that is there, `a` adds to its end, `c` tells that content comes
/// in chunks. Without `a` what was there stays whole until all of the new is there.
pub fn write(path: &Path, mode: u32, flags: &[u8]) -> Work<()> {
    if flags.contains(&b'c') {
        write_from(&mut Chunks { input: &*standard(0), left: 0, ended: false }, path, mode, flags)
    } else {
        write_from(&mut &*standard(0), path, mode, flags)
    }
}

fn write_from(source: &mut impl Read, path: &Path, mode: u32, flags: &[u8]) -> Work<()> {
    if flags.contains(&b'p') {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).step("mkdir")?;
        }
    }
    match (flags.contains(&b'n'), flags.contains(&b'a')) {
        (true, _) => make(source, path, mode),
        (false, true) => add(source, path, mode),
        (false, false) => replace(source, path, mode),
    }
}

/// A new file. One that does not become whole is taken away again.
fn make(source: &mut impl Read, path: &Path, mode: u32) -> Work<()> {
    let mut options = OpenOptions::new();
    let (mut file, _) = open_regular(path, options.append(true).create_new(true).mode(mode), 0)?;
    let written = set_mode(&file, mode).and_then(|()| copy(source, &mut file).map(drop));
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

fn add(source: &mut impl Read, path: &Path, mode: u32) -> Work<()> {
    let mut options = OpenOptions::new();
    let mut file = match open_regular(path, options.append(true), 0) {
        Err(Trouble { errno: libc::ENOENT, .. }) => {
            let target = last_of_links(path)?;
            let (file, _) = open_regular(&target, options.create_new(true).mode(mode), 0)?;
            set_mode(&file, mode)?;
            file
        }
        other => {
            let (file, found) = other?;
            refuse_own_input(&found)?;
            file
        }
    };
    copy(source, &mut file).map(drop)
}

/// A link of the box may lead to what is to be written, by /proc: it would grow for as long as it is read.
fn refuse_own_input(found: &fs::Metadata) -> Work<()> {
    match standard(0).metadata() {
        Ok(input) if (input.dev(), input.ino()) == (found.dev(), found.ino()) => trouble(libc::ELOOP, "open"),
        _ => Ok(()),
    }
}

fn replace(source: &mut impl Read, path: &Path, mode: u32) -> Work<()> {
    let mode = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return trouble(libc::EISDIR, "open"),
        Ok(found) if !found.is_file() => return trouble(libc::ENXIO, "kind"),
        Ok(found) => found.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => mode,
        Err(error) => return Err(error).step("stat"),
    };
    let target = last_of_links(path)?;
    let (temporary, mut file) = beside(&target, mode)?;
    let written = copy(source, &mut file)
        .and_then(|_| set_mode(&file, mode))
        .and_then(|()| fs::rename(&temporary, &target).step("rename"));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A link is followed, as by any program: what it leads to is replaced, or made.
fn last_of_links(path: &Path) -> Work<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        let Ok(next) = fs::read_link(&target) else {
            return Ok(target);
        };
        target = target.parent().unwrap_or(Path::new("")).join(next);
    }
    trouble(libc::ELOOP, "open")
}

/// Whatever the umask is. A profile may refuse it, so it is asked for only where there is a difference.
fn set_mode(file: &File, mode: u32) -> Work<()> {
    if file.metadata().step("stat")?.permissions().mode() & 0o777 == mode {
        return Ok(());
    }
    file.set_permissions(fs::Permissions::from_mode(mode)).step("chmod")
}

/// A new file in the folder of `target`.
fn beside(target: &Path, mode: u32) -> Work<(PathBuf, File)> {
    let (Some(name), folder) = (target.file_name(), target.parent().unwrap_or(Path::new("."))) else {
        return trouble(libc::EISDIR, "open");
    };
    for attempt in 0..100 {
        let mut hidden = std::ffi::OsString::from(format!(".{}-{attempt}.", std::process::id()));
        hidden.push(name);
        let mut bytes = hidden.into_encoded_bytes();
        bytes.truncate(255);
        // SAFETY: on unix any bytes are a name.
        let temporary = folder.join(unsafe { std::ffi::OsString::from_encoded_bytes_unchecked(bytes) });
        can_rename(&temporary)?;
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.step("open").map(|file| (temporary, file)),
        }
    }
    trouble(libc::EEXIST, "open")
}

/// Where a filter refuses to rename, a new file would be left behind: asked for with a name that is not there.
fn can_rename(missing: &Path) -> Work<()> {
    match fs::rename(missing, missing) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error).step("rename"),
        _ => Ok(()),
    }
}

/// Everything that there is to read.
pub fn copy(from: &mut impl Read, to: &mut impl Write) -> Work<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut count = 0;
    loop {
        let got = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.step("read")?,
        };
        if got == 0 {
            return Ok(count);
        }
        to.write_all(&buffer[..got]).step("write")?;
        count += got as u64;
    }
}

/// Content of a sender who may be lost: `u32 length, bytes`, up to a length of 0. An end before that is an error, so that
/// what was sent until then is not taken for all of it.
struct Chunks<R> {
    input: R,
    left: usize,
    ended: bool,
}

impl<R: Read> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut head = [0; 4];
            self.input.read_exact(&mut head).map_err(|_| lost())?;
            self.left = u32::from_le_bytes(head) as usize;
            self.ended = self.left == 0;
        }
        if self.ended {
            return Ok(0);
        }
        let most = buffer.len().min(self.left);
        match self.input.read(&mut buffer[..most])? {
            0 => Err(lost()),
            got => {
                self.left -= got;
                Ok(got)
            }
        }
    }
}

fn lost() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}
