"""What an administrator decides for the whole platform in single figures and words: how long, how many, whether.

Invariant: every policy is a field of `PlatformPolicies`, which says its type, range, default and unit; only what
differs from the default is stored, and a process is at most REFRESH_SECONDS behind. Rates of the API and lists of
networks are not here: they are no single values, and have routes of their own.
"""
