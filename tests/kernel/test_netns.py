"""A namespace that is held does not end, so that its number is nobody else's."""

from __future__ import annotations

import os
import subprocess

from sockpid.host import kernel, netns


def test_a_number_is_not_given_out_again_while_it_is_held() -> None:
    program = ["unshare", "--net", "sh", "-c", "stat -L -c %i /proc/self/ns/net; read line"]

    def another() -> int:
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            inode = int(child.stdout.readline())
            held = netns.hold(inode) if hold else False
            assert held == hold
            child.communicate("\n")
        return inode

    hold = True
    try:
        first = another()
        hold = False
        assert first not in {another() for _ in range(5)}
        assert os.fstat(netns._held[0]).st_ino == first
        assert first in {namespace.inode for namespace in netns.find({first: f"/proc/self/fd/{netns._held[0]}"})}
    finally:
        netns.hold(kernel.netns_inode())
