"""All that docs/accuracy.md says, in one run: storms and scenarios, natively and on kernels of the lab.

catalogue names the columns, job plays one, store keeps what was played, report makes the document of it.
"""
