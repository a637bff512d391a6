"""What a module is: it reads facts, plans typed actions, and judges the result. It never changes anything itself.

Invariant: imports `shared` only. Core and modules meet here and nowhere else.
"""
