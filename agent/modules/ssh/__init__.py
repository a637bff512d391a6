"""SSH of accounts: sshd's rules for tenants, and the keys of each account in a file that is not the tenant's.

Invariant: a tenant logs in by a key that the controller knows, into the slice of the account, and forwards nothing;
what lies in a tenant's home decides nothing. Not here: the unix user and its shell (account), who may have SSH (the
package).
"""
