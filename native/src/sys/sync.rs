//! Waiting for a word in memory. futex(2).

use std::sync::atomic::{AtomicU32, Ordering};

/// Until it has another value.
pub fn wait_while(word: &AtomicU32, value: u32) {
    while word.load(Ordering::Acquire) == value {
        // SAFETY: `word` outlives the call. Whatever it answers, the value tells.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, 0usize) };
    }
}

/// Until it has that value.
pub fn wait_until(word: &AtomicU32, value: u32) {
    loop {
        match word.load(Ordering::Acquire) {
            seen if seen == value => return,
            seen => wait_while(word, seen),
        }
    }
}

/// Whoever waits for it looks again.
pub fn wake(word: &AtomicU32) {
    // SAFETY: `word` outlives the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}
