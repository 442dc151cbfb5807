"""Migrations of the SQL store: what Alembic runs to bring the tables of an older release up to this one.

A change of ``schema.py`` raises its VERSION by one and adds ``versions/v0002_what_changes.py`` with that number as its
revision; the tests compare the outcome of all migrations with ``schema.py``. Fresh databases are made from
``schema.py`` at once and run none of this.
"""
