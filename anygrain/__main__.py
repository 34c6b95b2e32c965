"""`python -m anygrain` is the program `anygrain`."""

from anygrain.cli import main

main()
