"""What nodes could not bring about and left as it was: one list for every kind of resource, with the way out of each.

Invariant: rows are written from results of nodes only and say what is, never what is wanted; retry and discard go
through the use cases of the resource's own owner. Not here: how a site, an account or a module is changed.
"""
