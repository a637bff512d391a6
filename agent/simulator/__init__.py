"""Agents that exist in memory only: the real link and protocol over a `MemoryHost`, many in one process.

Invariant: what a simulated host accepts, refuses and undoes is what a real one does; only the effects are made up. Not
here: anything that a real node runs.
"""
