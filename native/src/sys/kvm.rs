//! Virtual machines of this kernel, as far as timing one instruction loop takes: linux/kvm.h, x86-64.

use super::{check, fd, Sys};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const GET_API_VERSION: u64 = 0xAE00;
const CREATE_VM: u64 = 0xAE01;
const GET_VCPU_MMAP_SIZE: u64 = 0xAE04;
const CREATE_VCPU: u64 = 0xAE41;
const SET_USER_MEMORY_REGION: u64 = 0x4020_AE46;
const SET_TSS_ADDR: u64 = 0xAE47;
const RUN: u64 = 0xAE80;
const SET_REGS: u64 = 0x4090_AE82;
const GET_SREGS: u64 = 0x8138_AE83;
const SET_SREGS: u64 = 0x4138_AE84;

/// The only one that there has been since 2007.
const API_VERSION: i64 = 12;
/// Three pages that Intel's virtualisation wants below 4 GiB.
const TSS_ADDRESS: u64 = 0xFFFB_D000;
const EXIT_REASON_AT: usize = 8;
const EXIT_HLT: u32 = 5;
const PROTECTED_MODE: u64 = 1;
/// Bit 1 of the flags is always set.
const FLAGS: u64 = 2;

#[repr(C)]
struct Region {
    slot: u32,
    flags: u32,
    guest_address: u64,
    bytes: u64,
    address: u64,
}

#[repr(C)]
#[derive(Default)]
struct Registers {
    /// rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 to r15.
    general: [u64; 16],
    rip: u64,
    rflags: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Segment {
    base: u64,
    limit: u32,
    selector: u16,
    kind: u8,
    present: u8,
    privilege: u8,
    wide: u8,
    is_code_or_data: u8,
    long: u8,
    pages: u8,
    available: u8,
    unusable: u8,
    padding: u8,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Special {
    /// cs, ds, es, fs, gs, ss, tr, ldt.
    segments: [Segment; 8],
    tables: [[u64; 2]; 2],
    cr0: u64,
    /// cr2, cr3, cr4, cr8, efer, apic_base, and a bitmap of interrupts.
    others: [u64; 10],
}

/// A machine with one processor and one page of memory, at the guest's address 0.
pub struct Machine {
    _vm: OwnedFd,
    processor: OwnedFd,
    shared: *mut u8,
}

/// Whether the device answers as KVM does. EPROTO where it does not.
pub fn open() -> Sys<OwnedFd> {
    let kvm = fd::open("/dev/kvm", libc::O_RDWR)?;
    match ask(kvm.as_raw_fd(), GET_API_VERSION, 0)? {
        API_VERSION => Ok(kvm),
        _ => Err(libc::EPROTO),
    }
}

impl Machine {
    /// `memory` begins a page, and is never unmapped.
    pub fn new(kvm: &OwnedFd, memory: &'static mut [u8]) -> Sys<Machine> {
        let vm = own(ask(kvm.as_raw_fd(), CREATE_VM, 0)?);
        ask(vm.as_raw_fd(), SET_TSS_ADDR, TSS_ADDRESS)?;
        let (address, bytes) = (memory.as_mut_ptr() as u64, memory.len() as u64);
        let region = Region { slot: 0, flags: 0, guest_address: 0, bytes, address };
        ask(vm.as_raw_fd(), SET_USER_MEMORY_REGION, &region as *const Region as u64)?;
        let processor = own(ask(vm.as_raw_fd(), CREATE_VCPU, 0)?);
        let size = ask(kvm.as_raw_fd(), GET_VCPU_MMAP_SIZE, 0)? as usize;
        let shared = fd::map_file(processor.as_raw_fd(), size)?;
        let machine = Machine { _vm: vm, processor, shared };
        machine.enter_protected_mode()?;
        Ok(machine)
    }

    /// Flat segments of 32 bits at the highest privilege, and no paging.
    fn enter_protected_mode(&self) -> Sys<()> {
        // SAFETY: plain data, for which zeroes are a value.
        let mut special: Special = unsafe { std::mem::zeroed() };
        ask(self.processor.as_raw_fd(), GET_SREGS, &mut special as *mut Special as u64)?;
        let data = Segment {
            base: 0,
            limit: u32::MAX,
            selector: 0x10,
            kind: 0x3,
            present: 1,
            privilege: 0,
            wide: 1,
            is_code_or_data: 1,
            long: 0,
            pages: 1,
            available: 0,
            unusable: 0,
            padding: 0,
        };
        special.segments[..6].fill(data);
        special.segments[0] = Segment { selector: 0x8, kind: 0xB, ..data };
        special.cr0 |= PROTECTED_MODE;
        ask(self.processor.as_raw_fd(), SET_SREGS, &special as *const Special as u64).map(drop)
    }

    /// Runs from the guest's address 0 on until a `hlt`. EPROTO for any other end.
    pub fn run(&self) -> Sys<()> {
        let start = Registers { rflags: FLAGS, ..Registers::default() };
        ask(self.processor.as_raw_fd(), SET_REGS, &start as *const Registers as u64)?;
        ask(self.processor.as_raw_fd(), RUN, 0)?;
        // SAFETY: the kernel's page is as long, and belongs to this processor.
        match unsafe { self.shared.add(EXIT_REASON_AT).cast::<u32>().read_volatile() } {
            EXIT_HLT => Ok(()),
            _ => Err(libc::EPROTO),
        }
    }
}

fn own(fd: i64) -> OwnedFd {
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

fn ask(fd: RawFd, request: u64, argument: u64) -> Sys<i64> {
    // SAFETY: an address among the arguments is of what the request reads or writes.
    check(unsafe { libc::ioctl(fd, request as _, argument) } as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::size_of;

    #[test]
    fn structures_are_as_long_as_their_requests_say() {
        for (request, size) in [
            (SET_USER_MEMORY_REGION, size_of::<Region>()),
            (SET_REGS, size_of::<Registers>()),
            (GET_SREGS, size_of::<Special>()),
            (SET_SREGS, size_of::<Special>()),
        ] {
            assert_eq!((request >> 16 & 0x3FFF) as usize, size, "{request:x}");
        }
    }
}
