"""How often is the printed PID right? Real programs in dozens of situations, every event held against the truth.

`field` runs on the target (Python 3.7, standard library, no sockpid imported: the truth must not depend on what is
judged); the modules beside it run on the developer's machine.
"""
