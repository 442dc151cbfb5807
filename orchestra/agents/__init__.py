"""Agents: LLM agents as tasks, their durable runs, and what several of them do together. Loads no model client."""
