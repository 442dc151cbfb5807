"""Who hears of it: the tail of the event log, and delivery to handlers."""
