"""Limits and feature flags: one registry of what is counted, one check before anything is written.

Invariant: a limit exists because core or a module declared it here; whoever creates something that is counted asks
`require_room` in the transaction that writes it, and nowhere else is a limit compared. Core declares the limits and
flags of modules that do not exist yet, so that packages can say them; a module that arrives declares its own under the
same key and nothing else changes. Not here: the values (controller.core.packages), what was used over time
(controller.core.usage), and what the kernel enforces (the node).
"""
