"""The fourteen settings of the GLWS paper, ours beside its code; and mixtures of kinds of label, ours alone."""
