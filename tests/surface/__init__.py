"""The public surface as a text, one thing a line: what docs/compatibility.md makes promises about.

Whoever changes it sees which lines went and which came, and says so. Non-public modules are not named here: what they
hold may move. Nothing depends on the version of Python, or on the machine.
"""
