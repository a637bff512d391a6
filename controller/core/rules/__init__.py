"""Rules: what the controller itself does when something happens, as administrators and resellers wrote it down.

Invariant: a rule acts at most once for one event, in one transaction with the note that it did, as an actor of its own
("rule/NAME") that may do no more than its maker might then and may now. Whatever a rule causes knows how deep it is.
Not here: the events (controller.core.events.catalogue), sending messages (controller.core.webhooks).
"""
