"""Packages: how much an account may use, and which runtimes it may have.

Invariant: a package that an account uses cannot be deleted, and changing it converges every account that uses it. Not
here: enforcement, which is the kernel's (agent) and is read back as proofs (controller.core.accounts.proofs).
"""
