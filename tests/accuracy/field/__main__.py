"""python3 -I -S tests/accuracy/field --output DIRECTORY: plays scenarios beside `sockpid run`."""

import os
import sys

sys.path[0] = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")

from tests.accuracy.field.driver import main  # noqa: E402  it is found by the line above

if __name__ == "__main__":
    sys.exit(main())
