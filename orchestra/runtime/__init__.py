"""How it runs: the only home of Celery. Workers, transports, pools and the hooks between them and the engine."""
