//! What folders of this host hold, as one number, without reading any file: the same as long as nothing is changed, made
//! or taken away. It is no defence against who makes files so that two contents have the same.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, Metadata};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

const MOST_THREADS: usize = 4;

/// Prints the number in hexadecimal digits. A folder below that this user can't read counts by itself alone.
pub fn run(folders: &[&str]) -> io::Result<()> {
    let mut sum = 0u128;
    for folder in folders {
        fs::read_dir(folder)?;
        sum = sum.wrapping_add(number_of(Path::new(folder), &fs::metadata(folder)?));
    }
    println!("{:032x}", sum.wrapping_add(Walk::new(folders).sum()?));
    Ok(())
}

struct Walk {
    state: Mutex<State>,
    more: Condvar,
}

struct State {
    left: Vec<PathBuf>,
    /// How many threads are in a folder, and may find more.
    busy: usize,
    sum: u128,
    fault: Option<io::Error>,
}

impl Walk {
    fn new(folders: &[&str]) -> Walk {
        let left = folders.iter().map(PathBuf::from).collect();
        Walk { state: Mutex::new(State { left, busy: 0, sum: 0, fault: None }), more: Condvar::new() }
    }

    fn sum(self) -> io::Result<u128> {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.work());
            }
        });
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.fault.map_or(Ok(state.sum), Err)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(folder) = self.take() {
            let found = look_in(&folder);
            let mut state = self.lock();
            state.busy -= 1;
            match found {
                Ok((sum, folders)) => {
                    state.sum = state.sum.wrapping_add(sum);
                    state.left.extend(folders);
                }
                Err(error) => state.fault = Some(error),
            }
            self.more.notify_all();
        }
    }

    /// The next folder, or None where there will be none any more.
    fn take(&self) -> Option<PathBuf> {
        let mut state = self.lock();
        while state.fault.is_none() {
            if let Some(folder) = state.left.pop() {
                state.busy += 1;
                return Some(folder);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }
}

/// What stands in a folder, in a sum that does not depend on the order in which it is found, and the folders in it.
fn look_in(folder: &Path) -> io::Result<(u128, Vec<PathBuf>)> {
    let (mut sum, mut folders) = (0u128, Vec::new());
    let entries = match fs::read_dir(folder) {
        // It has gone meanwhile, which another look tells, or nobody shows what is in it.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok((0, folders))
        }
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        // Links are not followed.
        let seen = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let path = entry.path();
        sum = sum.wrapping_add(number_of(&path, &seen));
        if seen.is_dir() {
            folders.push(path);
        }
    }
    Ok((sum, folders))
}

/// By the time of its last change, which nobody can set. A link can't be changed, only made anew.
fn number_of(path: &Path, seen: &Metadata) -> u128 {
    let changed = (seen.ctime(), seen.ctime_nsec());
    // A folder's size is the file system's matter.
    let size = if seen.is_dir() { 0 } else { seen.size() };
    let what = (path, seen.dev(), seen.ino(), seen.mode(), seen.uid(), seen.gid(), size, changed);
    u128::from(hash_of(0, &what)) << 64 | u128::from(hash_of(1, &what))
}

fn hash_of(which: u8, what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (which, what).hash(&mut hasher);
    hasher.finish()
}
