"""`python3 -m sockpid_gen ...`"""

from sockpid_gen.cli.cli import main

main()
