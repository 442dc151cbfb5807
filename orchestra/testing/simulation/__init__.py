"""A deterministic simulation: the real cycle, reconciler and store in a world where everything goes wrong.

Every choice comes from one seed: the workload, the weather (what the broker loses, who dies or freezes and when, when
the store is away) and the schedule. ``python -m orchestra.testing.simulation --seed 7`` plays one seed again.
"""

from orchestra.testing.simulation.run import Report, Theatre
from orchestra.testing.simulation.world import Violation

__all__ = ["Report", "Theatre", "Violation"]
