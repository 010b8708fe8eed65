"""python3 -I -S tests/storm/field --output DIRECTORY --seed N: plays one storm beside `sockpid run`."""

import os
import sys

sys.path[0] = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")

from tests.storm.field.director import main  # noqa: E402  it is found by the line above

if __name__ == "__main__":
    sys.exit(main())
