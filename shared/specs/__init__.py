"""Desired state: what a node must look like, as typed values with no behaviour.

Invariant: a spec that exists is valid (`__post_init__` checks every value, also when it was decoded from the wire), and
its strings can be written into any configuration file without escaping surprises. One file per kind. Not here: how a
node gets there (agent/modules) or who may ask for it (controller/core).
"""
