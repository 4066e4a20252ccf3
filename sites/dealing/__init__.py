"""Who holds which image: hospitals, parts, requests; all by patient."""
