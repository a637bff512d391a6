"""The wire `fleet.v1`: frames between controller and agent, signed envelopes, the agent's local socket.

Invariant: bytes that an older release wrote decode to the same meaning here (golden files in tests/unit/shared/golden),
and nothing is decoded before its signature was checked where a signature is required. Not here: sockets, retries, keys.
"""
