"""`python -m pnilib` is `pni`."""

from pnilib.cli import main

main()
