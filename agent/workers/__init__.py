"""Workers: short-lived processes that touch a tenant's files as the tenant, in the tenant's slice.

Invariant: a worker has no right that its tenant has not, opens everything beneath one folder without following links,
and believes its orders from the executor only. Starting one is not here (agent.system.workers), nor is the network.
"""
