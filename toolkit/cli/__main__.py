"""`python -m toolkit.cli` is `saga`."""

from toolkit.cli import main

main()
