"""Testing: what users test their workflows with, and what the engine is tested with."""
