#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Where one kernel has the fields that sockpid reads, and a table file that a host with that kernel takes.

    python3 one_kernel.py /sys/kernel/btf/vmlinux host.json
    python3 one_kernel.py linux-image-6.1.0-50-amd64_6.1.176-1_amd64.deb host.json

Needs `pip install 'sockpid[gen]'`. The file is for `sockpid run --offsets host.json`, or /etc/sockpid/offsets.d/.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from sockpid.errors import SockpidError
from sockpid_gen import Table, extract


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    source, target = sys.argv[1:]
    try:
        kernel = extract(source)
        for name, row in sorted(kernel.layout.items()):
            if row is None:
                print(f"{name}: this kernel has none")
                continue
            for field, place in sorted(getattr(row, "fields", {}).items()):
                print(f"{name}.{field}: {'not there' if place is None else f'bit {place.bit_offset}'}")
        table = Table()
        table.add(kernel)
        with tempfile.TemporaryDirectory() as made:
            (shard,) = (Path(made) / path for path in table.save(made))
            shutil.copy(shard, target)
    except SockpidError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"wrote {target}: {kernel.release} ({kernel.arch}), read from {kernel.provenance['kind']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
