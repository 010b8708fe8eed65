"""All scenarios by name, in the order in which they are played and listed."""

from __future__ import annotations

from typing import Dict

from . import closing, handshake, names, paths, pids, senders, sharing
from .scenario import SCENARIOS, Scenario

MODULES = (senders, sharing, handshake, closing, paths, names, pids)

CATALOGUE: Dict[str, Scenario] = {
    scenario.name: scenario
    for module in MODULES
    for scenario in SCENARIOS.values()
    if scenario.body.__module__ == module.__name__
}
