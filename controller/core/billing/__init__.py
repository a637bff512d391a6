"""What a billing system asks for: who had what, and for how long.

Invariant: an export of a period that is over is the same whenever it is asked for, as long as the audit log goes back
that far. Not here: prices, invoices, payments; the calls that change accounts (controller.core.accounts).
"""
