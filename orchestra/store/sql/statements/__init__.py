"""The statements by noun: each has a name and a sentence. SQLAlchemy builds them; each is compiled once per dialect.

They are executed on the driver's own cursor: what Core adds per execution would cost more than SQLite does.
"""

from orchestra.store.sql.statements import (
    batch,
    claims,
    jobs,
    joins,
    leases,
    log,
    meta,
    parts,
    runs,
    steps,
    whole,
    window,
)

__all__ = ["batch", "claims", "jobs", "joins", "leases", "log", "meta", "parts", "runs", "steps", "whole", "window"]
