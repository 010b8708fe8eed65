// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Whose socket is it? Asks sockpid's pinned map with bpf(2) itself: no crate. Prints "PID COMM", or that the owner is
//! not known.
//!
//!     rustc --edition 2021 docs/examples/lookup.rs
//!     ./lookup /sys/fs/bpf/sockpid/v2/socket_to_pid 10.0.0.1 40034 10.0.0.2 9000
//!
//! Rust 1.77 or later (Debian 12: the package rustc-web). With aya two calls do the same: docs/socket-to-pid.md.

use std::ffi::{c_long, CString};
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

// Its #![no_std] is for a crate of its own.
#[allow(dead_code, unused_attributes)]
#[path = "socket_to_pid.rs"]
mod socket_to_pid;
use socket_to_pid::{SocketOwner, SocketTuple};

extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
const SYS_BPF: c_long = 321;
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
const SYS_BPF: c_long = 280;
#[cfg(target_arch = "arm")]
const SYS_BPF: c_long = 386;
#[cfg(target_arch = "powerpc64")]
const SYS_BPF: c_long = 361;
#[cfg(target_arch = "s390x")]
const SYS_BPF: c_long = 351;

const BPF_MAP_LOOKUP_ELEM: c_long = 1;
const BPF_OBJ_GET: c_long = 7;
const BPF_F_RDONLY: u32 = 1 << 3;
/// The kernel may be writing a value while it is copied; a moment later it is whole.
const LOOKS: usize = 5;

/// `attr`: the first members of `union bpf_attr`, as 64-bit words.
fn bpf(command: c_long, attr: &[u64; 4]) -> Result<i32, Error> {
    let done = unsafe { syscall(SYS_BPF, command, attr.as_ptr(), std::mem::size_of_val(attr)) };
    if done < 0 {
        return Err(Error::last_os_error());
    }
    Ok(done as i32)
}

/// Two 32-bit members side by side.
fn pair(first: u32, second: u32) -> u64 {
    let mut word = [0; 8];
    word[..4].copy_from_slice(&first.to_ne_bytes());
    word[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(word)
}

fn open(path: &str) -> Result<File, Error> {
    let path = CString::new(path)?;
    let flags = pair(0, BPF_F_RDONLY); // bpf_fd, file_flags
    let fd = bpf(BPF_OBJ_GET, &[path.as_ptr() as u64, flags, 0, 0])?;
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// `None`: not known.
fn find(map: &File, key: &SocketTuple) -> Result<Option<SocketOwner>, Error> {
    let mut owner = std::mem::MaybeUninit::<SocketOwner>::zeroed();
    for _ in 0..LOOKS {
        let attr = [pair(map.as_raw_fd() as u32, 0), key as *const _ as u64, owner.as_mut_ptr() as u64, 0];
        match bpf(BPF_MAP_LOOKUP_ELEM, &attr) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let owner = unsafe { owner.assume_init() };
        if owner.is_of(key) {
            return Ok(Some(owner));
        }
    }
    Ok(None)
}

fn key(words: &[String]) -> Option<SocketTuple> {
    let netns = std::fs::metadata("/proc/self/ns/net").map_or(0, |found| found.ino()) as u32;
    let (sport, dport) = (words[1].parse().ok()?, words[3].parse().ok()?);
    match (words[0].parse().ok()?, words[2].parse().ok()?) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Some(SocketTuple::v4(netns, a.octets(), sport, b.octets(), dport)),
        (IpAddr::V6(a), IpAddr::V6(b)) => Some(SocketTuple::v6(netns, a.octets(), sport, b.octets(), dport)),
        _ => None,
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(key) = (words.len() == 5).then(|| key(&words[1..])).flatten() else {
        eprintln!("usage: lookup PIN LOCAL PORT REMOTE PORT");
        return ExitCode::from(2);
    };
    match open(&words[0]).and_then(|map| find(&map, &key)) {
        Err(error) => {
            eprintln!("{}: {error}", words[0]);
            ExitCode::from(2)
        }
        Ok(None) => {
            eprintln!("not known");
            ExitCode::from(1)
        }
        Ok(Some(owner)) => {
            // A process calls itself what it likes: nothing of that may be a terminal's command.
            let comm = owner.latest.comm.split(|&byte| byte == 0).next().unwrap_or_default();
            let comm = String::from_utf8_lossy(comm).replace(char::is_control, "?");
            match owner.latest.pid() {
                Some(pid) => println!("{pid} {comm}"),
                None => println!("- kernel"),
            }
            ExitCode::SUCCESS
        }
    }
}
