"""The usage ledger: what accounts use of what their packages limit, now, at most, and day by day.

Invariant: the ledger is measured, never written by whoever creates something; what decides whether there is room is a
fresh count (controller.core.limits.check). An account that is over a limit (its package was cut) is told of, and after
the grace period of its package's policy throttled or suspended, and restored when it is within its limits again. Not
here: what the kernel enforces and proves (controller.core.accounts), figures of nodes (controller.fleet).
"""
