"""Patterns: what several agents do together, each a workflow whose rounds are steps."""
