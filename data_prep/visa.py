"""VisA: fetch, verify, unpack and check it.  See visa.md."""

from common import prepare_and_check

if __name__ == "__main__":
    prepare_and_check("visa")
