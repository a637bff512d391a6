"""What the product can do on a node: one folder for each module, none of which knows another or the core.

Invariant: a module imports `agent.contract` and `shared` only. It reads through a probe, returns plans, and changes
nothing. Not here: applying, journalling and undoing (agent.core), side effects (agent.system).
"""
