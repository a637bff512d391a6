"""nginx: the server of the node and one virtual server for each site.

Invariant: a tenant's file is reached only through folders and links that the same tenant owns, and a site's file holds
the name of its account, so that no account's change touches another's. Not here: PHP (a socket path in the spec), TLS.
"""
