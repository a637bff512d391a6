"""Turns a bare Debian machine into a node, and back: checks, users, code, units, enrolment, and the way out.

Invariant: every step is `ensure_`: run again on a healthy node it changes nothing, and whatever it puts on the machine
has its counterpart in uninstall.py. Not here: hosting itself; after the installation only signed jobs change the host.
"""
