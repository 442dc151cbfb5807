"""The memory store: everything in dicts of this process, for embedded orchestrators that keep nothing."""
