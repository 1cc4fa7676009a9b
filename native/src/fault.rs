//! What failed: the step, its object and the kernel's answer. Python turns it into a sentence.

use std::fmt;

#[derive(Debug, Clone)]
pub struct Fault {
    pub step: &'static str,
    pub object: String,
    pub errno: i32,
}

pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    pub fn new(step: &'static str, object: impl Into<String>, errno: i32) -> Self {
        Fault { step, object: object.into(), errno }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = std::io::Error::from_raw_os_error(self.errno);
        write!(out, "{} {}: {}", self.step, self.object, error)
    }
}

/// Attaches step and object to the errno of a system call.
pub trait At<T> {
    fn at(self, step: &'static str, object: impl Into<String>) -> Outcome<T>;
}

impl<T> At<T> for Result<T, i32> {
    fn at(self, step: &'static str, object: impl Into<String>) -> Outcome<T> {
        self.map_err(|errno| Fault::new(step, object, errno))
    }
}
