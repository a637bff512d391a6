"""Webhooks: events as signed HTTP requests to addresses that an administrator chose.

Invariant: what is delivered was written in the transaction of the change, so a crash loses nothing; each message comes
at least once, under an id that stays the same. No request goes to an address of a private network that is not allowed.
Not here: the list of events (controller.core.events.catalogue), news for screens (controller.core.events.publisher).
"""
