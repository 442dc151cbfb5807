"""Leases: which workers are alive."""

from sqlalchemy import delete, insert, select, update

from orchestra.store.sql.schema import leases
from orchestra.store.sql.statements.columns import LEASE
from orchestra.store.sql.statements.statement import Statement, named, p

RENEW = Statement(
    "renew",
    "A worker says that it is alive.",
    update(leases)
    .where(leases.c.incarnation == p("incarnation"))
    .values(expires_at=p("expires_at"), queues=p("queues"), slots=p("slots"))
    .returning(leases.c.incarnation),
    ("incarnation",),
)
ADD_LEASE = Statement("add lease", "A worker has started.", insert(leases).values(named(leases)))
LEASES = Statement("leases", "All workers that are known.", select(*leases.columns), LEASE)
DROP_LEASE = Statement(
    "drop lease",
    "A worker has stopped, or is known to be dead.",
    delete(leases).where(leases.c.incarnation == p("incarnation")).returning(leases.c.incarnation),
    ("incarnation",),
)
DROP_LEASE_AS_SEEN = Statement(
    "drop lease as seen",
    "A lease has run out, unless it was renewed since that was seen.",
    delete(leases)
    .where(leases.c.incarnation == p("incarnation"), leases.c.expires_at == p("expires_at"))
    .returning(leases.c.incarnation),
    ("incarnation",),
)
