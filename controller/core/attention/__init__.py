"""One list of everything that a person should look at, with what may be done about each.

Invariant: derived from the rows of others at every question, so nothing here can be out of date; the only thing kept is
who put what aside, and why. Not here: doing it (jobs, parked, drift, nodes have their own use cases).
"""
