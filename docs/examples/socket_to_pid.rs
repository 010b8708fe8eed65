// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Key and value of sockpid's pinned map `socket_to_pid`, version 1 (docs/socket-to-pid.md, bpf_bytecode/sockpid.h).
//!
//! Needs `core` alone, so it serves a program for the kernel (aya-ebpf) and one for user space (aya). For the latter add
//! `unsafe impl aya::Pod` for both: every bit pattern is valid and there is no padding.
#![no_std]

use core::mem::{offset_of, size_of};

pub const SOCKPID_ABI: u32 = 1;
pub const TASK_COMM_LEN: usize = 16;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

/// `Process::how`: how the owner was learnt. A value that is not listed here is one of a later release.
pub mod how {
    pub const CONNECT: u32 = 1;
    pub const ACCEPT: u32 = 2;
    pub const SEND: u32 = 3;
    pub const RECV: u32 = 4;
    pub const LISTEN: u32 = 5;
    pub const SEED: u32 = 6;
    /// Only kernel threads have used the socket: no process owns it.
    pub const KERNEL: u32 = 7;
}

/// Key. Ports are in the machine's byte order, addresses in network order; all bytes that are not used are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SocketTuple {
    /// Inode number of the network namespace, 0 without CONFIG_NET_NS.
    pub netns: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Local port.
    pub sport: u16,
    /// Remote port, 0 for a listening socket.
    pub dport: u16,
    pub zero: u16,
    /// Local address; an IPv4 address is the first four bytes.
    pub saddr: [u8; 16],
    pub daddr: [u8; 16],
}

/// Value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process {
    /// Process id << 32 | thread id, in the initial PID namespace.
    pub pid_tgid: u64,
    /// When the process started: CLOCK_BOOTTIME, nanoseconds.
    pub start_ns: u64,
    /// When it was seen: CLOCK_MONOTONIC, nanoseconds.
    pub when_ns: u64,
    /// On the cgroup v2 hierarchy, 0 where the kernel cannot tell.
    pub cgroup_id: u64,
    /// One of `how`.
    pub how: u32,
    /// `task_struct.flags`.
    pub flags: u32,
    /// Ends with a zero byte.
    pub comm: [u8; TASK_COMM_LEN],
}

impl SocketTuple {
    /// The key of a socket: local end, remote end. A v4-mapped pair becomes an IPv4 one, as the map has it.
    pub const fn v6(netns: u32, saddr: [u8; 16], sport: u16, daddr: [u8; 16], dport: u16) -> Self {
        if is_v4_mapped(&daddr) {
            return Self::v4(netns, last4(&saddr), sport, last4(&daddr), dport);
        }
        Self { netns, family: AF_INET6, sport, dport, zero: 0, saddr, daddr }
    }

    pub const fn v4(netns: u32, saddr: [u8; 4], sport: u16, daddr: [u8; 4], dport: u16) -> Self {
        let (saddr, daddr) = (first4(&saddr), first4(&daddr));
        Self { netns, family: AF_INET, sport, dport, zero: 0, saddr, daddr }
    }
}

impl Process {
    /// The process id of the owner; `None` for a socket that only kernel threads use.
    pub const fn pid(&self) -> Option<u32> {
        if self.how == how::KERNEL {
            return None;
        }
        Some((self.pid_tgid >> 32) as u32)
    }
}

const fn is_v4_mapped(a: &[u8; 16]) -> bool {
    u128::from_be_bytes(*a) >> 32 == 0xffff
}

const fn first4(a: &[u8; 4]) -> [u8; 16] {
    [a[0], a[1], a[2], a[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

const fn last4(a: &[u8; 16]) -> [u8; 4] {
    [a[12], a[13], a[14], a[15]]
}

const _: () = {
    assert!(size_of::<SocketTuple>() == 44);
    assert!(offset_of!(SocketTuple, netns) == 0);
    assert!(offset_of!(SocketTuple, family) == 4);
    assert!(offset_of!(SocketTuple, sport) == 6);
    assert!(offset_of!(SocketTuple, dport) == 8);
    assert!(offset_of!(SocketTuple, zero) == 10);
    assert!(offset_of!(SocketTuple, saddr) == 12);
    assert!(offset_of!(SocketTuple, daddr) == 28);

    assert!(size_of::<Process>() == 56);
    assert!(offset_of!(Process, pid_tgid) == 0);
    assert!(offset_of!(Process, start_ns) == 8);
    assert!(offset_of!(Process, when_ns) == 16);
    assert!(offset_of!(Process, cgroup_id) == 24);
    assert!(offset_of!(Process, how) == 32);
    assert!(offset_of!(Process, flags) == 36);
    assert!(offset_of!(Process, comm) == 40);
};
