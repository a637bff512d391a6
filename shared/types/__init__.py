"""Value types: strings and numbers that were checked once, at the edge, and are safe to put into any file or command.

Invariant: every `parse_` function is pure and total: it returns the canonical form or raises `InvalidInputError` with a
sentence for people. Not here: Structs of desired state (shared/specs) or of the wire (shared/protocol).
"""
