"""Where entries live: in this process (``memory``) or in Redis (``redis``)."""
