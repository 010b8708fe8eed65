"""`python3 -m sockpid_gen ...`"""

from .cli import main

main()
