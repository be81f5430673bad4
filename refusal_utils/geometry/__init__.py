"""How directions lie to one another: contrasts, uncertainty, null hypotheses, clusters, ranks and projections."""
