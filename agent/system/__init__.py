"""The only place that changes a node: `agent.system.host.RealHost` reads facts, applies typed actions and undoes them.

Invariant: every change is described by an action of `agent.contract.actions`, is captured before it happens, and can be
repeated or undone after a crash at any point. No shell, no path that a tenant could redirect, no wait without a time
limit. Not here: which actions, in which order, and when to undo (agent.core); what they are for (agent.modules).
"""
