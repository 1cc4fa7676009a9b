//! `immure-init`: the part of immure that Python can't be. It decides nothing; it makes system calls.

mod attest;
mod carry;
mod channel;
mod connect;
mod content;
mod fault;
mod files;
mod filters;
mod frame;
mod guest;
mod init;
#[cfg(target_arch = "x86_64")]
mod kvm;
mod listen;
mod machine;
mod plan;
mod probe;
mod processes;
mod spawner;
mod sys;

fn main() {
    if machine::is_ours() {
        // What its kernel does not know of its command line may stand among the arguments.
        machine::run()
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["spawner", fd] => match fd.parse() {
            Ok(fd) => spawner::run(fd),
            Err(_) => usage(),
        },
        ["guest", input, output] => match (input.parse(), output.parse()) {
            (Ok(input), Ok(output)) => guest::run(input, output, sys::process::exit),
            _ => usage(),
        },
        ["filters", ref pids @ ..] if !pids.is_empty() => {
            match pids.iter().map(|pid| pid.parse()).collect::<Result<Vec<i32>, _>>() {
                Ok(pids) => filters::run(&pids),
                Err(_) => usage(),
            }
        }
        ["content", ref folders @ ..] if !folders.is_empty() => {
            if let Err(error) = content::run(folders) {
                eprintln!("immure-init: content: {error}");
                sys::process::exit(1)
            }
        }
        ["probe"] => probe::run(),
        #[cfg(target_arch = "x86_64")]
        ["kvm"] => kvm::run(),
        ["--version"] => println!("immure-init {}", env!("CARGO_PKG_VERSION")),
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("usage: immure-init spawner FD | guest FD FD | filters PID… | content FOLDER… | probe | kvm | --version\nThe immure package starts this program; it is of no use by hand.");
    sys::process::exit(2)
}
