"""Domains: which account may serve which host name.

Invariant: a name belongs to one account in the whole fleet, together with every name below it; it is free again only
when the node that served it has said that it no longer does. Not here: zones and records (the dns module).
"""
