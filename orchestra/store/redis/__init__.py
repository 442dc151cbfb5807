"""The Redis store: every operation of the contract is one Lua script, so one round trip and atomic."""
