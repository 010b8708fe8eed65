"""Who talks to whom, and where it fails: the events of one host or of many as one bounded graph. Pure.

graph = TransportGraph()
for line in lines:
    graph.handle_transport_event(json.loads(line))
for suspect in suspects(graph):
    print(suspect.why)
"""

from .suspects import suspects
from .transport import TransportGraph
from .view import View

__all__ = ["TransportGraph", "View", "suspects"]
