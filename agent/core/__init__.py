"""The root side of a node: believes nothing but signatures, journals before it touches, and leaves nothing half done.

Invariant: core never imports a module, and every effect on the host goes through the `Host` it was given, inside a
transaction of the journal. Not here: the network (agent.link), the actions themselves (agent.system), what a spec means
(agent.modules).
"""
