"""One script for each system: what `benchmarks.driver` wants of it, and nothing else."""
