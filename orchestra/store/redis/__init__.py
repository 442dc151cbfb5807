"""The Redis store: every operation of the contract is one Lua function on the server, so one round trip and atomic."""
