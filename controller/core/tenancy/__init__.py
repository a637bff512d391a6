"""Tenants: whose rows somebody sees, resellers, custom roles and team members.

Invariant: a use case of somebody who reaches one tenant runs on a session that shows that tenant's rows only, so a
query that forgets to ask is narrow, not wide. Not here: signing in (core/auth), what a package grants (core/limits).
"""
