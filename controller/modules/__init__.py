"""What the product hosts: one package for each kind, with the same names as the agent's modules.

Invariant: a module imports core and never a sibling; what two need travels as a value in the manifest. Not here: who
may ask, limits and audit (controller.core).
"""
