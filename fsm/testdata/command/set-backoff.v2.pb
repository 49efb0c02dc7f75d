b1
/
ghcr.io┴Бо╙{UPSTREAM_THROTTLED"node-1