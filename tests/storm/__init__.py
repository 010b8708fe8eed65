"""A storm in place of scenarios: random programs do all at once what scenarios do one by one, and log what they did.

`field` runs on the target (Python 3.7, standard library, no sockpid imported); the modules beside it read the logs and
hold every event against them.
"""
