"""What people are told of: in their inbox here, and by mail.

Invariant: what is told is read off the audit log behind a cursor that moves in the same transaction, so each event is
told to each person once, whatever dies; nobody is told of what they may not see; a mail that nobody takes delays no
other. Not here: how a mail travels (controller.core.mail), what a screen is told (controller.core.events).
"""
