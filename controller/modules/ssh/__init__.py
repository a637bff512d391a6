"""SSH keys of accounts: who may log in, until when and from where.

Invariant: a key reaches a node only while its account's package has the feature `ssh`, and only as type, blob, end and
networks: options and comments that somebody pastes never do. Not here: sshd and its rules (agent.modules.ssh).
"""
