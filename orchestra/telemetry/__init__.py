"""Telemetry: what a worker or a beat shows to monitoring: metrics and probes over HTTP, JSON logs, spans."""
