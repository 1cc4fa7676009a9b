//! Folders as streams of tar: packed without following links, and unpacked into a folder of the box.

use super::content::copy;
use super::{open_regular, standard, trouble, unless_gone, Step, Work};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Folders, files and links below `path`. Anything else is an error, since it would be missing.
pub fn pack(path: &Path) -> Work<()> {
    if !fs::metadata(path).step("stat")?.is_dir() {
        return trouble(libc::ENOTDIR, "open");
    }
    packed(|builder| pack_folder(builder, path, Path::new("")))
}

type Builder<'a> = tar::Builder<BufWriter<&'a File>>;

fn packed(pack: impl FnOnce(&mut Builder) -> Work<()>) -> Work<()> {
    let output = standard(1);
    let mut builder = tar::Builder::new(BufWriter::with_capacity(256 * 1024, &*output));
    pack(&mut builder)?;
    builder.into_inner().and_then(|mut output| output.flush()).step("write")
}

fn pack_folder(builder: &mut Builder, folder: &Path, name: &Path) -> Work<()> {
    for entry in fs::read_dir(folder).step("open")? {
        let entry = entry.step("read")?;
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let Some(found) = unless_gone(entry.metadata(), "stat")? else {
            continue;
        };
        if !append(builder, &path, &name, &found)? {
            return trouble(libc::ENXIO, "kind");
        }
        if found.is_dir() {
            pack_folder(builder, &path, &name)?;
        }
    }
    Ok(())
}

/// One entry, without what is in it. False for what is neither folder nor file nor link.
fn append(builder: &mut Builder, path: &Path, name: &Path, found: &Metadata) -> Work<bool> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(found.permissions().mode() & 0o777);
    header.set_mtime(found.mtime().max(0) as u64);
    header.set_size(0);
    let kind = found.file_type();
    if kind.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        builder.append_data(&mut header, name, io::empty()).step("write")?;
    } else if kind.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        let target = fs::read_link(path).step("read link")?;
        builder.append_link(&mut header, name, &target).step("write")?;
    } else if kind.is_file() {
        let (file, found) = open_regular(path, OpenOptions::new().read(true), libc::O_NOFOLLOW)?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(found.size());
        // A file that changes while it is read is as long as it was when it was opened.
        let content = file.take(found.size()).chain(io::repeat(0)).take(found.size());
        builder.append_data(&mut header, name, content).step("write")?;
    }
    Ok(kind.is_dir() || kind.is_symlink() || kind.is_file())
}

/// What makes a name of the lower folder's go.
const WHITEOUT: &[u8] = b".wh.";

/// What was written above a folder, as a layer of the OCI's is: what is new or changed, and whiteouts for what has gone.
/// `merged` is where both are seen. Sockets and pipes are nobody's content, and left out.
pub fn pack_changes(upper: &Path, lower: &Path, merged: &Path) -> Work<()> {
    packed(|builder| pack_layer(builder, [upper, lower, merged], Path::new("")))
}

fn pack_layer(builder: &mut Builder, [upper, lower, merged]: [&Path; 3], name: &Path) -> Work<()> {
    for entry in fs::read_dir(upper).step("open")? {
        let entry = entry.step("read")?;
        let file_name = entry.file_name();
        if file_name.as_bytes().starts_with(WHITEOUT) {
            return trouble(libc::EINVAL, "name");
        }
        let Some(found) = unless_gone(entry.metadata(), "stat")? else {
            continue;
        };
        let (path, name) = (entry.path(), name.join(&file_name));
        // The kernel's own whiteouts are devices.
        if append(builder, &path, &name, &found)? && found.is_dir() {
            let below = [&path, &lower.join(&file_name), &merged.join(&file_name)];
            pack_layer(builder, below.map(PathBuf::as_path), &name)?;
        }
    }
    pack_whiteouts(builder, lower, merged, name)
}

fn pack_whiteouts(builder: &mut Builder, lower: &Path, merged: &Path, name: &Path) -> Work<()> {
    // Of what is a folder now, a link may have been before.
    if !unless_gone(fs::symlink_metadata(lower), "stat")?.is_some_and(|found| found.is_dir()) {
        return Ok(());
    }
    for entry in fs::read_dir(lower).step("open")? {
        let file_name = entry.step("read")?.file_name();
        if unless_gone(fs::symlink_metadata(merged.join(&file_name)), "stat")?.is_none() {
            let gone = [WHITEOUT, file_name.as_bytes()].concat();
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(0);
            builder
                .append_data(&mut header, name.join(OsStr::from_bytes(&gone)), io::empty())
                .step("write")?;
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
