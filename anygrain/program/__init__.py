"""What the verbs of the program do; `anygrain.cli` only reads their arguments."""
