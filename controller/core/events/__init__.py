"""News for people who look at the panel right now.

Invariant: an event is a hint that something changed, published after the commit; it may be lost, and nothing but a
screen depends on it. Not here: the WebSocket (controller.api), the audit log (controller.core.audit).
"""
