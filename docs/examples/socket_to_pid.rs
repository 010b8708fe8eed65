// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Key and value of sockpid's pinned map `socket_to_pid`, version 2 (docs/socket-to-pid.md, bpf_bytecode/sockpid.h).
//!
//! Needs `core` alone, so it serves a program for the kernel (aya-ebpf) and one for user space (aya). For the latter add
//! `unsafe impl aya::Pod` for all three: every bit pattern is valid and there is no padding.
#![no_std]

use core::mem::{offset_of, size_of};

pub const SOCKPID_ABI: u32 = 2;
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
    pub const SHUTDOWN: u32 = 8;
}

/// `SocketOwner::flags`.
pub mod owner {
    /// The socket was not seen to begin: who used it before is not known.
    pub const LATE: u32 = 1 << 0;
    /// Another socket has, or had, the same key (SO_REUSEPORT): this may be the owner of that one.
    pub const SHARED: u32 = 1 << 1;
    /// The kernel puts data of other sockets into this one: who was seen to send need not have it.
    pub const LENT: u32 = 1 << 2;
}

/// Key. Ports are in the machine's byte order, addresses in network order; all bytes that are not used are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SocketTuple {
    /// Inode number of the network namespace, 0 without CONFIG_NET_NS.
    pub netns: u32,
    /// Index of the device that the socket is bound to, 0 for none.
    pub ifindex: u32,
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

/// A process as it was when it used a socket.
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

/// Value. An element of the map may be given to another key while it is copied: look at `is_of` first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketOwner {
    /// The process that used the socket last.
    pub latest: Process,
    /// Address of the kernel's `struct sock`; 0: older than sockpid, its owner is from /proc.
    pub sk: u64,
    /// Of the socket, as in /proc/PID/fd; 0: not known.
    pub inode: u64,
    /// How many processes were seen to use it, at least.
    pub users: u32,
    /// Of `owner`.
    pub flags: u32,
    /// A hash of the key and of all of the above.
    pub seal: u64,
}

impl SocketTuple {
    /// The key of a socket: local end, remote end. A v4-mapped pair becomes an IPv4 one, as the map has it.
    /// Of one that is bound to a device, set `ifindex`.
    pub const fn v6(netns: u32, saddr: [u8; 16], sport: u16, daddr: [u8; 16], dport: u16) -> Self {
        if is_v4_mapped(&daddr) {
            return Self::v4(netns, last4(&saddr), sport, last4(&daddr), dport);
        }
        Self { netns, ifindex: 0, family: AF_INET6, sport, dport, zero: 0, saddr, daddr }
    }

    pub const fn v4(netns: u32, saddr: [u8; 4], sport: u16, daddr: [u8; 4], dport: u16) -> Self {
        let (saddr, daddr) = (first4(&saddr), first4(&daddr));
        Self { netns, ifindex: 0, family: AF_INET, sport, dport, zero: 0, saddr, daddr }
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

impl SocketOwner {
    /// Is this copy whole, and the value of this key? If not, look again; after some times it is not known.
    pub fn is_of(&self, key: &SocketTuple) -> bool {
        let seal = sealed(SEAL_SEED, key, size_of::<SocketTuple>());
        sealed(seal, self, offset_of!(SocketOwner, seal)) == self.seal
    }
}

const SEAL_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Goes on with a hash over the first `size` bytes of a struct without padding, a multiple of 8.
fn sealed<T>(seal: u64, of: &T, size: usize) -> u64 {
    debug_assert!(size <= size_of::<T>());
    let bytes = unsafe { core::slice::from_raw_parts((of as *const T).cast::<u8>(), size) };
    let mut seal = seal;
    for word in bytes.chunks_exact(8) {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        seal = seal.wrapping_add(u64::from_ne_bytes(eight)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        seal ^= seal >> 32;
    }
    seal
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
    assert!(size_of::<SocketTuple>() == 48);
    assert!(offset_of!(SocketTuple, netns) == 0);
    assert!(offset_of!(SocketTuple, ifindex) == 4);
    assert!(offset_of!(SocketTuple, family) == 8);
    assert!(offset_of!(SocketTuple, sport) == 10);
    assert!(offset_of!(SocketTuple, dport) == 12);
    assert!(offset_of!(SocketTuple, zero) == 14);
    assert!(offset_of!(SocketTuple, saddr) == 16);
    assert!(offset_of!(SocketTuple, daddr) == 32);

    assert!(size_of::<Process>() == 56);
    assert!(offset_of!(Process, pid_tgid) == 0);
    assert!(offset_of!(Process, start_ns) == 8);
    assert!(offset_of!(Process, when_ns) == 16);
    assert!(offset_of!(Process, cgroup_id) == 24);
    assert!(offset_of!(Process, how) == 32);
    assert!(offset_of!(Process, flags) == 36);
    assert!(offset_of!(Process, comm) == 40);

    assert!(size_of::<SocketOwner>() == 88);
    assert!(offset_of!(SocketOwner, latest) == 0);
    assert!(offset_of!(SocketOwner, sk) == 56);
    assert!(offset_of!(SocketOwner, inode) == 64);
    assert!(offset_of!(SocketOwner, users) == 72);
    assert!(offset_of!(SocketOwner, flags) == 76);
    assert!(offset_of!(SocketOwner, seal) == 80);
};
