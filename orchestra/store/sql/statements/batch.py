"""Batches: what many claims and records of one transaction do to many rows, on databases that change them in one
statement.

Written as texts, since nothing but PostgreSQL executes them. Rows come as JSON, in the order in which they are to be
locked. What is joined is looked up by the whole key of an index, or in an order that one index alone has: where
statistics are missing the planner takes one index for as good as another, and keeps for long what it has chosen then.
"""

from sqlalchemy import text

from orchestra.store.sql.statements.columns import CLAIMED, DISPATCH, HOT
from orchestra.store.sql.statements.joins import SHARDS, WIDE
from orchestra.store.sql.statements.log import ADDING_ALL
from orchestra.store.sql.statements.statement import FEW, Statement

_HOT = ", ".join(f"s.{name}" for name in HOT)
_DISPATCH = ", ".join(f"s.{name}" for name in DISPATCH)
_ENDED = ", ".join(f"e.{name}" for name in HOT)
_CLAIMED = ", ".join(f"s.{name}" for name in CLAIMED)

END_ALL = Statement(
    "end all",
    "Many claims completed, each if it is still the newest. Of those that are no part of anything and feed no join of"
    " any, all that follows is done as well: joins and runs are counted, and what is behind complete joins is ready.",
    text(f"""
WITH given AS (
  SELECT * FROM json_to_recordset(CAST(:rows AS json))
    AS g(run_id text, n int, generation int, claim int, output text, at float8)
), ended AS (
  UPDATE steps s
  SET status = 'COMPLETED', output = g.output, error = NULL, attempts = s.attempts + 1, sent_at = NULL, due_at = NULL,
    parts_left = NULL, collects = NULL, completed_at = g.at
  FROM given g
  WHERE {FEW.format("g")} AND s.run_id = g.run_id AND s.n = g.n AND s.claims = g.claim AND s.generation = g.generation
    AND s.status || '' = 'RUNNING'
  RETURNING s.run_id, s.generation, g.at,
    CASE WHEN s.feeds IS NULL THEN s.parent IS NULL ELSE s.feeds NOT LIKE '%,1]%' END AS plain, {_HOT}
), fed AS (
  SELECT e.run_id, e.n, CAST(f.feed ->> 0 AS int) AS number, CAST(f.feed ->> 1 AS int) AS parts
  FROM ended e CROSS JOIN LATERAL json_array_elements(CAST(e.feeds AS json)) AS f(feed)
  WHERE e.plain AND e.feeds IS NOT NULL AND {FEW.format("e")}
), counted_shards AS (
  UPDATE shards s SET remaining = s.remaining - d.count, live = s.live + d.count
  FROM (
    SELECT run_id, number, n % {SHARDS} AS shard, CAST(count(*) AS int) AS count
    FROM fed WHERE parts > {WIDE} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
  ) d
  WHERE {FEW.format("d")} AND s.run_id = d.run_id AND s.number = d.number AND s.shard = d.shard
  RETURNING s.run_id, s.number, s.remaining, s.live, s.broken, s.dead
), counted_joins AS (
  UPDATE joins j
  SET remaining = j.remaining - d.count, live = j.live + d.live, broken = j.broken + d.broken, dead = j.dead || d.dead
  FROM (
    SELECT run_id, number, CAST(count(*) AS int) AS count, CAST(sum(live) AS int) AS live,
      CAST(sum(broken) AS int) AS broken, string_agg(dead, '') AS dead
    FROM (
      SELECT run_id, number, 1 AS live, 0 AS broken, '' AS dead FROM fed WHERE parts BETWEEN 2 AND {WIDE}
      UNION ALL SELECT run_id, number, live, broken, dead FROM counted_shards WHERE remaining = 0
    ) arrived
    GROUP BY 1, 2 ORDER BY 1, 2
  ) d
  WHERE j.run_id = d.run_id AND j.number = d.number
  RETURNING j.run_id, j.number, j.remaining, j.live, j.broken
), complete AS (
  SELECT run_id, number FROM counted_joins WHERE remaining <= 0 AND broken = 0
  UNION ALL SELECT run_id, number FROM fed WHERE parts = 1
), released AS (
  UPDATE steps s SET status = 'QUEUED'
  FROM complete c CROSS JOIN LATERAL (
    SELECT b.run_id, b.n FROM steps b
    WHERE b.run_id = c.run_id AND b.waits_for = c.number AND b.status = 'PENDING' ORDER BY b.parent
  ) b
  WHERE s.run_id = b.run_id AND s.n = b.n AND s.status || '' = 'PENDING'
  RETURNING s.waits_for, s.parked, s.rank, {_DISPATCH}
), counted_runs AS (
  UPDATE runs r
  SET remaining = r.remaining - d.count,
    status = CASE WHEN r.remaining <= d.count AND r.completed_at IS NULL
      THEN coalesce(r.ending, CASE WHEN r.error IS NULL THEN 'COMPLETED' ELSE 'FAILED' END) ELSE r.status END,
    completed_at = CASE WHEN r.remaining <= d.count AND r.completed_at IS NULL THEN d.at ELSE r.completed_at END
  FROM (
    SELECT run_id, CAST(count(*) AS int) AS count, max(at) AS at
    FROM ended WHERE plain AND feeds IS NULL GROUP BY 1 ORDER BY 1
  ) d
  WHERE r.id = d.run_id
  RETURNING r.id, r.status, r.completed_at = d.at AS is_over, r.single
)
SELECT
  (SELECT json_agg(json_build_array(e.run_id, e.generation, e.plain, r.ending, {_ENDED}))
    FROM ended e JOIN runs r ON r.id = e.run_id),
  (SELECT json_agg(json_build_array(s.waits_for, s.parked, {_DISPATCH})
    ORDER BY s.run_id, s.waits_for, s.priority, s.rank DESC, s.n) FROM released s),
  (SELECT json_agg(json_build_array(run_id, number, live, broken) ORDER BY run_id, number)
    FROM counted_joins WHERE remaining <= 0 AND broken > 0),
  (SELECT json_agg(json_build_array(id, status)) FROM counted_runs WHERE is_over),
  (SELECT json_agg(q.queue) FROM (SELECT DISTINCT queue FROM ended) q WHERE EXISTS (
    SELECT 1 FROM steps w WHERE w.queue = q.queue AND w.status = 'QUEUED' AND w.sent_at IS NULL AND w.parked = 0))
"""),
    ("ended", "released", "broken", "runs", "waiting"),
)
_claim_all = f"""
UPDATE steps s
SET status = 'RUNNING', claims = s.claims + 1, worker = g.worker, started_at = g.at, sent_at = coalesce(s.sent_at, g.at)
FROM json_to_recordset(CAST(:rows AS json)) AS g(run_id text, n int, generation int, worker text, at float8)
WHERE {FEW.format("g")} AND s.run_id = g.run_id AND s.n = g.n AND s.generation = g.generation
  AND s.status || '' = 'QUEUED' AND s.parked + 0 = 0
RETURNING s.run_id, s.generation, {_CLAIMED}
"""
CLAIM_ALL = Statement(
    "claim all",
    "Take many steps that are ready, each by a message of its own, or since they have just become so.",
    text(_claim_all),
    ("run_id", "generation", *CLAIMED),
)
CLAIM_ALL_AND_ADD = Statement(
    "claim all and add events",
    "What a transaction ends with that goes on where nothing waits.",
    text(f"WITH logged AS ({ADDING_ALL}) {_claim_all}"),
    ("run_id", "generation", *CLAIMED),
)
OUTPUTS = Statement(
    "outputs",
    "The outputs of many steps.",
    text(f"""
SELECT s.run_id, s.n, s.output
FROM json_to_recordset(CAST(:rows AS json)) AS g(run_id text, n int)
JOIN steps s ON {FEW.format("g")} AND s.run_id = g.run_id AND s.n = g.n
"""),
    ("run_id", "n", "output"),
)
