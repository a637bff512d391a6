"""Clients: the people and companies that accounts belong to.

Invariant: a client that owns an account cannot be deleted. Not here: who signs in for them (core/tenancy).
"""
