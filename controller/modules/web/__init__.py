"""Sites: which host names are served from which folder of an account, and with which PHP.

Invariant: each site is one SiteSpec in its account's manifest, or, once the node has refused it, one held key: a parked
site keeps serving what it served before and never stops another. Not here: PHP itself (the php module answers the
need), the names' ownership (controller.core.domains).
"""
