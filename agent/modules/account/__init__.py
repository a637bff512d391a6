"""The account itself: unix user, home on a storage driver, slice with its limits.

Invariant: it never touches a user, uid or folder that belongs to somebody else on the node. Not here: what the account
runs (web, php).
"""
