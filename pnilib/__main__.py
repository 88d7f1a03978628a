"""`python -m pnilib` is `pni`."""

from pnilib.apps.cli import main

if __name__ == "__main__":  # `pni demo` starts processes, which import this
    main()
