"""HTTP handlers, one file per noun: typed body in, use case, view out.

Invariant: three to eight lines each, no rules and no SQL; `ROUTES` at the end of a file is what it offers. Not here:
authentication and error bodies (controller.api).
"""
