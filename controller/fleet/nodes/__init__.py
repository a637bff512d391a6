"""The machines themselves: names, roles, modules, where the next account goes, how they are, what keeps work away.

Judgements (placement, health) are pure; what a node says about itself never overwrites what is wanted of it.
"""
