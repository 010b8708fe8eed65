"""Exchanges BTF ids of functions, and tells what is attached by them all the same. Prints a line of JSON.

Every id is taken for that of every other function; then a probe is started with all of them moved on by one.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Dict

sys.path.insert(0, "/sockpid/runtime")

from sockpid.bpf.features import Features
from sockpid.bpf.link import MECHANISMS
from sockpid.errors import SyscallError
from sockpid.host import kernel
from sockpid.image import hooks
from sockpid.offsets import offsets
from sockpid.probe.collection import Options
from sockpid.probe.loader import Loader
from sockpid.probe.tracer import Tracer, load_image
from sockpid.selfcheck import selfcheck


def always(number: int, _function: str) -> int:
    return number


def one_of(ids: Dict[str, int], function: str) -> int:
    return ids.get(function, 0)


def main() -> None:
    identity = kernel.identify()
    image = load_image(identity.arch.byte_order)
    found = offsets.from_btf(image, identity.arch)
    ids = {name: found.btf_id(name) for name in sorted(hooks.functions()) if found.btf_id(name)}
    features = Features(frozenset(), found.btf_id)
    accepted = []
    tried = 0
    for name in ids:
        how = MECHANISMS["lsm" if name.startswith("bpf_lsm_") else "fentry"]
        for other, number in ids.items():
            loader = Loader(image, found._replace(btf_id=functools.partial(always, number)), features, {}, ())
            tried += 1
            try:
                loader._btf_id(name, how)
            except SyscallError:
                continue
            accepted.append([name, other])
    names = list(ids)
    moved = {name: ids[names[index - 1]] for index, name in enumerate(names)}
    with Tracer.open_with(
        Options(), identity, image, found._replace(btf_id=functools.partial(one_of, moved))
    ) as tracer:
        results = selfcheck.run(tracer)
        print(
            json.dumps(
                {
                    "functions": len(ids),
                    "tried": tried,
                    "accepted": accepted,
                    "hooks": tracer.collection.mechanisms(),
                    "reasons": [reason for a in tracer.collection.hooks for _, reason in a.refused],
                    "wrong": [line for result in results for line in result.mismatches],
                    "right": [result.family for result in results if result.ok],
                }
            )
        )


main()
