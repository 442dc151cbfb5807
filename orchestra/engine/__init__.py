"""What happens next, as pure functions over values: no clock, no store, no broker, no logging."""
