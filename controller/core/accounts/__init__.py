"""Accounts: one tenant on one node, with a package, and everything that is hosted for it.

Invariant: what is wanted (`state`, `desired_generation`) and what was seen (`observed_*`, proofs) are separate columns;
each change of desired state is one generation, compiled into one manifest and sent as one job. An account that is
deleted keeps its name and its domains until its node said that nothing is left. Not here: specs of sites, pools and the
like (controller.modules), nodes and uids (controller.fleet).
"""
