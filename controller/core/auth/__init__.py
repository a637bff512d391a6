"""Who is asking: administrators, their sign-ins and their API tokens.

Invariant: nothing at rest can be used to sign in (argon2id of passwords, SHA-256 of random session and token secrets),
and an unknown name costs the caller as much time as a wrong password. Not here: what an actor may do
(core.context.Actor), HTTP (controller.api).
"""
