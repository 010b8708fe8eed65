"""Where events go: any number of outputs at once, each with a bounded queue and a thread of its own.

A consumer that is slow, dead or full never holds up the probe. What did not fit into an output's queue is dropped and
counted for that output, and consumers that read lines are told where the gap is (see docs/events.md).
"""

from .base import Gone, Output, Record
from .fanout import Outputs

__all__ = ["Gone", "Output", "Outputs", "Record"]
