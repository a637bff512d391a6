"""Mails of the controller: made from typed parts, and handed to one SMTP server.

Invariant: nothing that somebody typed becomes a header of its own; a secret in a mail's text is in no log and no error.
Not here: when a mail is due (a task of whoever wants it sent), and mailboxes of accounts (a module's).
"""
