//! What is known of files. An entry, little-endian: `u8 kind, u32 mode, u32 uid, u32 gid, u64 size, i64 modified_ns, u32
//! length of the name, u32 length of a link's target, name, target`. Kinds: 0 file, 1 folder, 2 link, 3 anything else.

use super::{standard, unless_gone, Step, Work};
use std::fs::{self, Metadata};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub fn stat(path: &Path, follow: bool) -> Work<()> {
    let found = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) }.step("stat")?;
    standard(1).write_all(&encode(&found, path.as_os_str().as_bytes(), path)).step("write")
}

/// The entries of a folder, as they come.
pub fn list(path: &Path) -> Work<()> {
    let output = standard(1);
    let mut output = BufWriter::with_capacity(64 * 1024, &*output);
    for entry in fs::read_dir(path).step("open")? {
        let entry = entry.step("read")?;
        if let Some(found) = unless_gone(entry.metadata(), "stat")? {
            let data = encode(&found, entry.file_name().as_bytes(), &entry.path());
            output.write_all(&data).step("write")?;
        }
    }
    output.flush().step("write")
}

fn encode(found: &Metadata, name: &[u8], path: &Path) -> Vec<u8> {
    let kind = found.file_type();
    let target = if kind.is_symlink() { fs::read_link(path).ok() } else { None };
    let target = target.as_ref().map_or(&b""[..], |target| target.as_os_str().as_bytes());
    let mut data = Vec::with_capacity(64 + name.len() + target.len());
    data.push(match () {
        () if kind.is_file() => 0,
        () if kind.is_dir() => 1,
        () if kind.is_symlink() => 2,
        () => 3,
    });
    data.extend((found.mode() & 0o7777).to_le_bytes());
    data.extend(found.uid().to_le_bytes());
    data.extend(found.gid().to_le_bytes());
    data.extend(found.size().to_le_bytes());
    let modified_ns = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    data.extend(modified_ns.to_le_bytes());
    data.extend((name.len() as u32).to_le_bytes());
    data.extend((target.len() as u32).to_le_bytes());
    data.extend(name);
    data.extend(target);
    data
}
