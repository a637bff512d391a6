"""Resellers: what they may hand out, what they did hand out, and whose clients and accounts change hands.

Invariant: whatever would promise a reseller's accounts more goes through `within_caps`, in the transaction that writes
it, so a cap times its factor is never passed by an act of the reseller. Not here: whose rows a reseller sees
(controller.core.tenancy), and what one account may use (controller.core.limits).
"""
