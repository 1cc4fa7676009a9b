//! What files hold.

use super::{open_regular, standard, trouble, Step, Work};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const CHUNK: usize = 256 * 1024;

/// `length` bytes from `offset` on, or as many as there are.
pub fn read(path: &Path, offset: u64, length: u64) -> Work<()> {
    let (mut file, _) = open_regular(path, OpenOptions::new().read(true))?;
    if offset > 0 {
        file.seek(SeekFrom::Start(offset)).step("seek")?;
    }
    copy(&mut file.take(length), &mut *standard(1)).map(drop)
}

/// Flags: `p` makes the folders above, `n` refuses a file that is there, `a` adds to its end. Without `a` what was there
/// stays whole until all of the new is there.
pub fn write(path: &Path, mode: u32, flags: &[u8]) -> Work<()> {
    if flags.contains(&b'p') {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).step("mkdir")?;
        }
    }
    if flags.contains(&b'a') || flags.contains(&b'n') {
        let mut options = OpenOptions::new();
        options.append(true).create(true).create_new(flags.contains(&b'n')).mode(mode);
        let (mut file, _) = open_regular(path, &mut options)?;
        return copy(&mut *standard(0), &mut file).map(drop);
    }
    replace(path, mode)
}

fn replace(path: &Path, mode: u32) -> Work<()> {
    // A link is followed, as by any program: what it leads to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let kept = match fs::metadata(&target) {
        Ok(found) if found.is_dir() => return trouble(libc::EISDIR, "open"),
        Ok(found) if !found.is_file() => return trouble(libc::ENXIO, "kind"),
        Ok(found) => Some(found.permissions().mode() & 0o777),
        Err(_) => None,
    };
    let (temporary, mut file) = beside(&target, mode)?;
    let written = copy(&mut *standard(0), &mut file)
        .and_then(|_| match kept {
            Some(kept) => file.set_permissions(fs::Permissions::from_mode(kept)).step("chmod"),
            None => Ok(()),
        })
        .and_then(|()| fs::rename(&temporary, &target).step("rename"));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
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
