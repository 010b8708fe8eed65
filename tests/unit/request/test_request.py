"""The request file: what it holds, what it does not, and that a copying mistake is noticed."""

from __future__ import annotations

import os
import re

import pytest

from sockpid.cli import survey
from sockpid.errors import RequestError
from sockpid.request import request
from sockpid.request.request import Request, digest, parse, without_builder

BANNER = (
    "Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, "
    "GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)"
)
ASKED = Request(
    "3b43fad5034874490492495d552c0af6a5fab235",
    "6.1.0-56-cloud-amd64",
    "x86_64",
    without_builder(BANNER),
    digest(BANNER),
    (("os", "debian 12"), ("functions", " ".join(f"function_{n}" for n in range(40))), ("format", "a b:0:8")),
)


def test_what_is_written_is_read() -> None:
    assert parse(ASKED.text, "host.req") == ASKED
    assert all(len(line) <= request.WIDTH for line in ASKED.text.splitlines())
    assert ASKED.is_of(BANNER + "\n")
    assert not ASKED.is_of(BANNER.replace("6.1.192", "6.1.193"))


def test_a_kernel_without_build_id() -> None:
    assert parse(ASKED._replace(build_id=None).text, "host.req").build_id is None


@pytest.mark.parametrize(
    "mangled",
    [
        ASKED.text.replace("\n", "\r\n"),
        "\n\n" + ASKED.text.replace("\n", "  \n") + "\n",
        ASKED.text.replace("    ", "\t"),
        "\ufeff" + ASKED.text,
    ],
)
def test_what_mail_and_terminals_do_to_white_space_is_no_mistake(mangled: str) -> None:
    assert parse(mangled, "host.req") == ASKED


@pytest.mark.parametrize("position", [n for n in range(0, len(ASKED.text), 5) if not ASKED.text[n].isspace()])
def test_every_other_mistake_is_noticed(position: int) -> None:
    old = ASKED.text[position]
    text = ASKED.text[:position] + ("x" if old != "x" else "y") + ASKED.text[position + 1 :]
    with pytest.raises(RequestError, match=r"host\.req"):
        parse(text, "host.req")


def test_what_is_cut_off_or_of_another_time_is_said() -> None:
    with pytest.raises(RequestError, match="not complete"):
        parse(ASKED.text[: len(ASKED.text) // 2], "host.req")
    with pytest.raises(RequestError, match="version 2"):
        parse(ASKED.text.replace("sockpid-request 1", "sockpid-request 2"), "host.req")
    with pytest.raises(RequestError, match="no request"):
        parse("{}", "host.req")
    with pytest.raises(RequestError, match="no request"):
        parse("", "host.req")


def test_who_built_a_kernel_is_nobodys_business() -> None:
    private = "Linux version 6.9.1 (alice@secret.example) (gcc 13) #3 SMP Fri May 17 10:00:00 UTC 2026"
    assert without_builder(private) == "Linux version 6.9.1 (-) (gcc 13) #3 SMP Fri May 17 10:00:00 UTC 2026"
    assert "debian-kernel@lists.debian.org" in without_builder(BANNER)


def test_the_request_of_this_host() -> None:
    asked = survey.survey()
    assert parse(asked.text, "host.req") == asked
    assert asked.release == os.uname().release
    facts = dict(asked.facts)
    assert "tcp_sendmsg" in facts["functions"] or facts["functions"].startswith("unknown: ")
    assert os.uname().nodename not in re.split(r"[^\w.-]+", asked.text)
    assert len(asked.text) < 4096
