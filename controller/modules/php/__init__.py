"""PHP for accounts: answers the need of other modules for the runtime `php`.

Invariant: no rows of its own; a pool exists exactly as long as some resource of the account needs its version. Not
here: which site uses which version (that is the site's own field).
"""
