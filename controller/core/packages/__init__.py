"""Packages: how much an account may use, and which runtimes and features it may have.

Invariant: a package that an account uses, or from which another inherits, cannot be deleted; every edit adds a version,
and changing it converges every account that follows the newest one. Not here: enforcement, which is the kernel's, or
the check before anything is written (controller.core.limits), and what is used over time (controller.core.usage).
"""
