:
defaultghcr.io/org/appv1