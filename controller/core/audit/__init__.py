"""The audit log: who changed what, when, on whose request, from which state to which.

Invariant: an entry is written in the transaction of the change it records, is never changed, and carries a hash over
itself and its predecessor, so that a changed, removed or inserted entry is found by `verify_chain`. Not here: what the
nodes did with a change; that is the job's result.
"""
