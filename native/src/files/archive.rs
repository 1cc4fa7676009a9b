//! Folders as streams of tar: packed without following links, and unpacked into a folder of the box.

use super::content::copy;
use super::{open_regular, standard, trouble, unless_gone, Step, Work};
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Folders, files and links below `path`. Anything else is an error, since it would be missing.
pub fn pack(path: &Path) -> Work<()> {
    if !fs::metadata(path).step("stat")?.is_dir() {
        return trouble(libc::ENOTDIR, "open");
    }
    let output = standard(1);
    let mut builder = tar::Builder::new(BufWriter::with_capacity(256 * 1024, &*output));
    pack_folder(&mut builder, path, Path::new(""))?;
    builder.into_inner().and_then(|mut output| output.flush()).step("write")
}

fn pack_folder<W: Write>(builder: &mut tar::Builder<W>, folder: &Path, name: &Path) -> Work<()> {
    for entry in fs::read_dir(folder).step("open")? {
        let entry = entry.step("read")?;
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let Some(found) = unless_gone(entry.metadata(), "stat")? else {
            continue;
        };
        let mut header = tar::Header::new_gnu();
        header.set_mode(found.permissions().mode() & 0o777);
        header.set_mtime(found.mtime().max(0) as u64);
        header.set_size(0);
        let kind = found.file_type();
        if kind.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data(&mut header, &name, io::empty()).step("write")?;
            pack_folder(builder, &path, &name)?;
        } else if kind.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            let target = fs::read_link(&path).step("read link")?;
            builder.append_link(&mut header, &name, &target).step("write")?;
        } else if kind.is_file() {
            let (file, found) = open_regular(&path, OpenOptions::new().read(true), libc::O_NOFOLLOW)?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(found.size());
            // A file that changes while it is read is as long as it was when it was opened.
            let content = file.take(found.size()).chain(io::repeat(0)).take(found.size());
            builder.append_data(&mut header, &name, content).step("write")?;
        } else {
            return trouble(libc::ENXIO, "kind");
        }
    }
    Ok(())
}

/// The stream on standard input, into `path`, which is made where it is missing. No name of it leads out of there, and
/// nothing but folders, files and links comes out of it.
pub fn unpack(path: &Path) -> Work<()> {
    fs::create_dir_all(path).step("mkdir")?;
    let input = standard(0);
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(256 * 1024, &*input));
    archive.set_preserve_permissions(false);
    archive.set_preserve_mtime(true);
    archive.set_unpack_xattrs(false);
    for entry in archive.entries().step("archive")? {
        let mut entry = entry.step("archive")?;
        let kind = entry.header().entry_type();
        if !(kind.is_dir() || kind.is_file() || kind.is_symlink() || kind.is_hard_link()) {
            return trouble(libc::ENXIO, "kind");
        }
        if !entry.unpack_in(path).step("unpack")? {
            return trouble(libc::EXDEV, "name");
        }
    }
    // What follows the end of an archive is padding; its sender waits until somebody has read it.
    copy(&mut &*input, &mut io::sink()).map(drop)
}
