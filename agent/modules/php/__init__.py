"""PHP: for each account and version a PHP-FPM master of its own, inside the account's slice, asleep until it is asked.

Invariant: no PHP process runs outside the slice of its account or as another user, the master included. Not here: who
asks (web), which limits the slice has (account).
"""
