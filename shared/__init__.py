"""The language that controller and agents speak: value types, desired state, the wire and the errors.

Invariant: nothing here imports `controller`, `agent` or `cli`, performs I/O or reads a clock, so both sides (and an
old agent beside a new controller) can trust that the same bytes mean the same thing. Not here: any rule that only one
side needs.
"""
