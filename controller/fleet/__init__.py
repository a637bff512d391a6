"""The nodes: who they are, what they trust, how they are reached, and which of them gets the next account.

Invariant: a node's names and rights come from this package alone, never from what the node says about itself; what a
session writes carries its epoch, so that of two sessions of one node only the newer counts. Not here: accounts (core
asks for placement and uids, and observes results), job states (controller.jobs).
"""
